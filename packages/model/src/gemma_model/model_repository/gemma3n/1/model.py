from gemma_model.triton_backend import TritonPythonModel  # noqa: F401
