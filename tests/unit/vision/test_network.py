"""The chart network: what is shipped is what was trained, and training again gives the same. Needs the extra `vision`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("CI") != "true":  # continuous integration must run these, not skip them
    pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import Detector, RunMode
from services.feeds.samples import load_splits, load_stocks
from services.vision.architecture import tensor_shapes
from services.vision.dataset import Samples, Series, build_samples, split_by_time
from services.vision.evaluation import evaluate
from services.vision.forecaster import ForecasterError
from services.vision.loading import SHIPPED_WEIGHTS, load_forecaster
from services.vision.network import ChartNetwork, folded, from_weights, to_tensors
from services.vision.numpy_forecaster import NumpyForecaster
from services.vision.recorded import load_recorded
from services.vision.render import ChartSpec, render
from services.vision.torch_forecaster import TorchForecaster
from services.vision.training import Plan, train
from services.vision.training_series import stock_series
from services.vision.weights import MAX_BYTES, About, Weights, encode_weights, read_weights, weights_hash
from tests.unit.vision.build import walk

ABOUT = About(bars=20, moving_average=True, volume=True, horizon_bars=5, seed=1, train_until_ms=0)
DETECTOR = Detector(name="chart-cnn-20-5", version="1", horizon_bars=5)
IMAGES = render(ChartSpec(), np.stack([walk(39, seed) for seed in range(8)]))


def samples() -> Samples:
    times = np.arange(400, dtype=np.int64)
    return build_samples([Series("A", times, walk(400, 1)), Series("B", times, walk(400, 2))], ChartSpec(), 5)


def test_the_network_has_the_papers_shape() -> None:
    """Three rows of 60 columns reach the linear layer, as in the paper; a quarter of its channels."""
    network = ChartNetwork(normalized=True)
    assert network.linear.in_features == 64 * 3 * 60
    assert network(torch.zeros(2, 1, 64, 60)).shape == (2,)


def test_folding_batch_norm_changes_nothing_but_scale_and_shift() -> None:
    torch.manual_seed(1)
    trained = ChartNetwork(normalized=True)
    images = torch.from_numpy(IMAGES).unsqueeze(1).float() / 255
    trained(images)  # moves the running statistics off their start
    trained.eval()
    with torch.inference_mode():
        wanted = trained(images) * 0.5 - 0.25
        assert torch.allclose(folded(trained, scale=0.5, shift=-0.25)(images), wanted, atol=1e-5)


def test_weights_come_back_from_their_file_with_what_they_were_made_for(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = ChartNetwork(normalized=False)
    data = encode_weights(to_tensors(network), ABOUT)
    assert data == encode_weights(to_tensors(network), ABOUT)
    (tmp_path / "w.safetensors").write_bytes(data)
    again = read_weights(tmp_path / "w.safetensors")
    assert again.about == ABOUT
    assert again.digest == weights_hash(data)
    assert encode_weights(to_tensors(from_weights(again)), again.about) == data


def test_a_network_of_another_shape_is_refused_with_its_shapes(tmp_path: Path) -> None:
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes().items()}
    (tmp_path / "w.safetensors").write_bytes(encode_weights(tensors | {"linear.weight": np.zeros((1, 5), np.float32)}, ABOUT))
    with pytest.raises(ForecasterError, match=r"'linear.weight': \(1, 5\).*train it anew"):
        load_forecaster(tmp_path / "w.safetensors")


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 3.0), images=st.integers(1, 5))
@settings(max_examples=30)
def test_numpy_and_torch_give_the_same_probabilities_for_any_weights_and_image(seed: int, scale: float, images: int) -> None:
    """Both compute in single precision and add in another order: less than 1e-5 apart, and messages hold four decimals."""
    generator = np.random.default_rng(seed)
    tensors = {
        name: (generator.standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in tensor_shapes().items()
    }
    weights = Weights(tensors, ABOUT, "0" * 64)
    pixels = (255 * generator.integers(0, 2, (images, 64, 60))).astype(np.uint8)
    numpy, torch_ = NumpyForecaster(weights, DETECTOR), TorchForecaster(weights, DETECTOR, device="cpu")
    assert numpy.p_up(pixels) == pytest.approx(torch_.p_up(pixels), abs=1e-5)


def test_numpy_and_torch_agree_on_real_charts_with_the_shipped_weights() -> None:
    weights = read_weights(SHIPPED_WEIGHTS)
    numpy, torch_ = NumpyForecaster(weights, DETECTOR), TorchForecaster(weights, DETECTOR, device="cpu")
    charts = [
        render(ChartSpec(), windows[::25])
        for stock in stock_series(load_stocks(RunMode.DEMO), load_splits(RunMode.DEMO))
        for windows in [np.lib.stride_tricks.sliding_window_view(stock.adjusted(), 39, axis=0).swapaxes(1, 2)]
    ]
    pixels = np.concatenate(charts)
    assert len(pixels) > 300
    assert numpy.p_up(pixels) == pytest.approx(torch_.p_up(pixels), abs=1e-6)


@pytest.mark.parametrize(("content", "said"), [(b"", "does not hold"), (b"x" * 100, "does not hold"), (None, "cannot be read")])
def test_what_is_no_weights_file_is_refused_with_a_reason(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "w.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ForecasterError, match=said):
        load_forecaster(file)


def test_cuda_is_refused_where_there_is_none() -> None:
    if torch.cuda.is_available():
        assert load_forecaster(device="cuda").p_up(IMAGES) == pytest.approx(load_forecaster().p_up(IMAGES), abs=1e-3)
    else:
        with pytest.raises(ForecasterError, match="torch finds no such device"):
            load_forecaster(device="cuda")


def test_training_twice_with_one_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    parts = split_by_time(samples(), validation_from_ms=200, test_from_ms=300)
    first, again, other = (train(parts.train, parts.validation, Plan(seed=seed, epochs=2), lambda _: None) for seed in (3, 3, 4))
    assert first == again
    assert first.facts.sha256 != other.facts.sha256
    assert len(first.data) <= MAX_BYTES


def test_training_stops_once_validation_no_longer_gains() -> None:
    parts = split_by_time(samples(), validation_from_ms=200, test_from_ms=300)
    trained = train(parts.train, parts.validation, Plan(epochs=40, patience=1, learning_rate=1e-2), lambda _: None)
    losses = [validation for _, _, validation in trained.facts.epochs]
    assert len(losses) < 40
    assert losses[trained.facts.best_epoch - 1] == min(losses)


def test_the_shipped_weights_are_small_and_were_trained_before_the_demo() -> None:
    shipped = read_weights(SHIPPED_WEIGHTS)
    about, digest = shipped.about, shipped.digest
    assert SHIPPED_WEIGHTS.stat().st_size <= MAX_BYTES
    recorded = load_recorded()
    assert {features.detector.version for features in recorded.values()} == {digest[:12]}
    assert about.train_until_ms <= min(end_ms for _, end_ms in recorded)


def test_an_image_is_seen_the_same_alone_and_in_a_batch() -> None:
    model = load_forecaster()
    alone = np.concatenate([model.p_up(image[None]) for image in IMAGES])
    assert (alone == model.p_up(IMAGES)).all()
    assert ((alone > 0) & (alone < 1)).all()


def test_evaluation_holds_every_test_window_and_refuses_samples_of_another_horizon() -> None:
    model = load_forecaster()
    parts = split_by_time(samples(), validation_from_ms=200, test_from_ms=300)
    evaluation = evaluate(parts, model)
    assert sum(count for count, _, _ in evaluation.by_symbol.values()) == len(parts.test)
    assert [judged.name for judged in evaluation.models] == ["chart network", "logistic regression", "majority"]
    assert evaluation.models[2].figures["AUC"].value == 0.5
    series = [Series("A", np.arange(400, dtype=np.int64), walk(400, 1))]
    other = split_by_time(build_samples(series, ChartSpec(), 7), validation_from_ms=200, test_from_ms=300)
    with pytest.raises(ValueError, match=r"looks 5 bars ahead; the samples are .* and 7 bars"):
        evaluate(other, model)
