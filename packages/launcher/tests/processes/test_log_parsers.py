from gemma_launcher.console import LogLine
from gemma_launcher.processes import python_log, triton_log
from gemma_launcher.processes.triton_log import TritonLogParser

STARTED = """\
I1122 15:54:41.506156 5779 cuda_memory_manager.cc:117] "CUDA memory pool disabled"
E1122 15:54:41.506331 5779 server.cc:241] "CudaDriverHelper has not been initialized."
I1122 15:54:41.508557 5779 model_lifecycle.cc:472] "loading: gemma3n:1"
a line that the model printed
I1122 15:54:42.909915 5779 server.cc:631]
+---------+---------+--------+
| Model   | Version | Status |
+---------+---------+--------+
| gemma3n | 1       | READY  |
+---------+---------+--------+

W1122 15:54:42.912228 5779 metrics.cc:798] "DCGM unable to start: DCGM initialization error"
| a table row of the model's own |
""".splitlines()

FAILED = r"""
I1122 15:55:16.252784 6016 pb_stub.cc:366] " Failed to initialize Python stub: ValueError: bad file\n\nAt:\n  model.py(12)\n"
E1122 15:55:16.537092 6016 backend_model.cc:692] "ERROR: Failed to create instance: ValueError: bad file\n\nAt:\n  model.py(12)\n"
E1122 15:55:16.537240 6016 model_lifecycle.cc:642] "failed to load 'gemma3n' version 1: Internal: ValueError: bad file\n\nAt:\n  model.py(12)\n"
error: creating server: Internal - failed to load all models
""".strip().splitlines()  # noqa: E501


def read(lines: list[str]) -> list[LogLine]:
    reader = TritonLogParser()
    return [shown for line in lines for shown in reader(line)]


def test_tables_and_ignored_messages_are_dropped() -> None:
    assert read(STARTED) == [
        LogLine("loading: gemma3n:1", "info", "15:54:41"),
        LogLine("a line that the model printed"),
        LogLine("DCGM unable to start: DCGM initialization error", "warning", "15:54:42"),
        LogLine("| a table row of the model's own |"),
    ]


def test_an_error_of_several_lines_is_shown_once() -> None:
    assert read(FAILED) == [
        LogLine("failed to load 'gemma3n' version 1: Internal: ValueError: bad file", "error", "15:55:16"),
        LogLine("At:", "error", "15:55:16"),
        LogLine("  model.py(12)", "error", "15:55:16"),
        LogLine("error: creating server: Internal - failed to load all models", "error"),
    ]


def test_verbose_keeps_everything() -> None:
    reader = TritonLogParser(verbose=True)
    assert [line.text for raw in STARTED for line in reader(raw)] == STARTED


def test_failure_reason_of_triton() -> None:
    assert triton_log.failure_reason(FAILED) == "Internal: ValueError: bad file"
    assert (
        triton_log.failure_reason(FAILED[-1:])
        == "error: creating server: Internal - failed to load all models"
    )
    assert triton_log.failure_reason(["", "the last words"]) == "the last words"
    assert triton_log.failure_reason([]) == "there was no output"


def test_a_wrong_setting_of_the_model() -> None:
    lines = [
        line.replace("ValueError: bad file", "InvalidSetting: GEMMA_DEVICE: is wrong") for line in FAILED
    ]
    assert triton_log.permanent_error(lines) == "the model cannot be loaded: GEMMA_DEVICE: is wrong"
    assert triton_log.permanent_error(FAILED) == ""
    assert triton_log.permanent_error([]) == ""


def test_a_wrong_setting_of_the_gateway() -> None:
    lines = ["starting", "gemma-gateway: API_MAX_IMAGES: is wrong"]
    assert python_log.permanent_error(lines) == "the gateway cannot start: API_MAX_IMAGES: is wrong"
    assert python_log.permanent_error(["ValueError: gone"]) == ""


def test_invalid_json_is_shown_unchanged() -> None:
    assert read(['E1122 15:55:16.537240 6016 a.cc:1] "half a']) == [LogLine('"half a', "error", "15:55:16")]


def test_python_logging_lines() -> None:
    assert python_log.parse_line("2026-11-22 16:18:42,224 INFO    Started") == [
        LogLine("Started", "info", "16:18:42")
    ]
    assert python_log.parse_line("WARNING: low on memory") == [LogLine("low on memory", "warning")]
    assert python_log.parse_line("2026-11-22 16:18:42,224 CRITICAL gone") == [
        LogLine("gone", "error", "16:18:42")
    ]
    assert python_log.parse_line("  File x.py, line 3  ") == [LogLine("  File x.py, line 3")]
    assert python_log.parse_line("  ") == []


def test_failure_reason_of_a_python_program() -> None:
    assert python_log.failure_reason(["Traceback:", "ImportError: no torch", ""]) == "ImportError: no torch"
    assert python_log.failure_reason([]) == "there was no output"
