from personalize.types import Outcome, Reply, Usage
from server.metrics import Metrics


def reply(outcome: Outcome) -> Reply:
    return Reply("hi", "stop", "r", "t", None, outcome, Usage(7, 2))


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_one_answer_counts_once_with_all_its_choices():
    metrics = Metrics(dict)
    metrics.observe_replies([reply(Outcome.QUEUED), reply(Outcome.QUEUED)])
    assert sample(metrics, "personalize_chats_total", outcome="queued") == 1
    assert sample(metrics, "personalize_tokens_total", kind="prompt") == 7
    assert sample(metrics, "personalize_tokens_total", kind="completion") == 4


def test_an_answer_nobody_waited_for_counts_nothing():
    metrics = Metrics(dict)
    metrics.observe_replies([])
    assert b'outcome="' not in metrics.text()


def test_methods_that_clients_invent_make_no_new_series():
    metrics = Metrics(dict)
    for number in range(50):
        metrics.observe_request(f"FOO{number}", "none", 405, 0.1)
    assert sample(metrics, "personalize_http_request_seconds_count", method="other", route="none", status="405") == 50


def test_the_services_status_becomes_gauges():
    status = {"pending": 3, "lease": True, "journal_mode": "wal", "outcomes": {"applied": 5, "failed": 1}, "why": None}
    text = Metrics(lambda: status).text().decode()
    assert "personalize_pending 3.0" in text and "personalize_lease 1.0" in text
    assert 'personalize_outcomes{kind="applied"} 5.0' in text
    assert "wal" not in text and "why" not in text


def test_two_applications_count_apart():
    first, second = Metrics(dict), Metrics(dict)
    first.observe_request("GET", "/x", 200, 0.1)
    assert b'route="/x"' not in second.text()
