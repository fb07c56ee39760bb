from gemma_model.backend import TritonPythonModel  # noqa: F401
