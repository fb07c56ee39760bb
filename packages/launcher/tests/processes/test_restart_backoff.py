from gemma_launcher.processes.restart_backoff import HEALTHY_S, MAX_DELAY_S, RestartBackoff


def test_delays_double_up_to_a_limit() -> None:
    backoff, delays = RestartBackoff(), []
    for _ in range(9):
        backoff = backoff.after(healthy_s=1.0)
        delays.append(backoff.delay_s)
    assert delays == [0, 1, 2, 4, 8, 16, MAX_DELAY_S, MAX_DELAY_S, MAX_DELAY_S]


def test_the_count_is_reset_after_healthy_minutes() -> None:
    backoff = RestartBackoff(failures=6).after(healthy_s=HEALTHY_S)
    assert backoff == RestartBackoff(1)
    assert backoff.delay_s == 0


def test_many_failures_do_not_overflow() -> None:
    assert RestartBackoff(failures=10_000).delay_s == MAX_DELAY_S
