"""Whether two devices agree: known logits, two devices that differ, and what is said where there is one."""

import pytest
import torch
from made_networks import made_prepared, made_run, schema_errors

from ff.errors import FFError
from ff.files import read_json
from ff.learn import checkpoint
from ff.learn.inference import Inference
from ff.measure import agreement
from ff.measure.agreement import compare, last_head_logits, run_agreement


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_agreement_of_known_logits():
    first = torch.tensor([[1.0, 3, 0], [5, 4.5, 0], [0, 0, 2]])
    second = torch.tensor([[1.0, 3, 0], [4.25, 5, 0], [0, 0, 2.5]])
    result = compare(first, second, ("cpu", "cuda"))
    assert result["n"] == 3 and result["same_predictions_share"] == pytest.approx(2 / 3)
    assert result["max_logit_difference"] == pytest.approx(0.75)
    assert result["differing"] == [{"index": 1, "margin_cpu": 0.5, "margin_cuda": 0.75}]
    nothing = compare(first[:0], second[:0], ("cpu", "cuda"))
    assert nothing["same_predictions_share"] is nothing["max_logit_difference"] is None


def test_each_device_answers_for_itself(tmp_path, monkeypatch):
    """The second device is one that errs: it swaps the logits of two classes for every third image."""
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    true = last_head_logits

    def on(network, prepared, device, batch_size):
        logits = true(network, prepared, "cpu", batch_size)
        if device == "cuda":
            logits[::3] = logits[::3].flip(1)
        return logits

    monkeypatch.setattr(agreement, "last_head_logits", on)
    monkeypatch.setattr(agreement, "why_missing", lambda name: None)
    run_agreement(tmp_path, prepared, batch_size=7)
    document = read_json(tmp_path / "variance" / "agreement.json")
    assert schema_errors(document, "agreement") == []
    assert document["devices"] == ["cpu", "cuda"] and document["available"] and document["n"] == 60
    assert document["same_predictions_share"] == pytest.approx(40 / 60)
    assert [row["index"] for row in document["differing"]] == list(range(0, 60, 3))
    assert document["max_logit_difference"] > 0.1
    assert document["run"]["model"] == checkpoint.load(tmp_path / "model.safetensors")[1]["model"]


def test_the_same_device_under_two_names_agrees(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_agreement(tmp_path, prepared, ("cpu", "cpu:0"), batch_size=7)
    document = read_json(tmp_path / "variance" / "agreement.json")
    assert document["available"] and document["n"] == 60
    assert document["same_predictions_share"] == 1 and document["max_logit_difference"] == 0


def test_a_device_is_not_compared_with_itself(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    with pytest.raises(FFError, match="cpu cannot be compared with itself"):
        run_agreement(tmp_path, prepared, ("cpu", "cpu"))


def test_all_test_images_are_answered_by_the_last_head(tmp_path):
    prepared = made_prepared()
    network, _ = made_run(tmp_path, prepared)
    inference = Inference(network, prepared.facts)
    whole = inference.logits(inference.pixels(prepared.test.images))
    assert torch.allclose(last_head_logits(network, prepared, "cpu", 7), whole, atol=1e-5)


def test_agreement_with_one_device_says_what_is_missing(tmp_path, no_cuda):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_agreement(tmp_path, prepared)
    document = read_json(tmp_path / "variance" / "agreement.json")
    assert schema_errors(document, "agreement") == []
    assert not document["available"] and document["reason"].startswith("cuda: no CUDA device")
    assert document["same_predictions_share"] is None and document["n"] is None
    run_agreement(tmp_path, prepared, ["cpu"])
    document = read_json(tmp_path / "variance" / "agreement.json")
    assert schema_errors(document, "agreement") == []
    assert not document["available"] and document["reason"] == "only cpu was asked for"
