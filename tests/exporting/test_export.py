"""torch module → ONNX → folded → verified: what goes, what is refused, what is left alone."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402  behind what skips the file
from torch.nn.utils.parametrizations import weight_norm  # noqa: E402  as above

import bnfold  # noqa: E402  as above
from bnfold import train  # noqa: E402  as above
from bnfold.errors import (  # noqa: E402  as above
    CheckFailedError,
    ModelError,
    OutputError,
    UsageError,
)
from bnfold.records import Code, Verdict  # noqa: E402  as above
from bnfold.runtime import Job, run, write_arrays  # noqa: E402  as above
from models.recipes import RECIPES, build, example  # noqa: E402  as above
from tests.exporting import nets  # noqa: E402  as above

EXPORTERS = ("dynamo", "torchscript")
both = pytest.mark.parametrize("exporter", EXPORTERS)
WRITTEN_BY_BOTH = ("residual", "depthwise", "transposed")
"""In `make test`: dynamo takes seconds for each, and these have all kinds of layers but 1-d
and 3-d ones, of which TorchScript's are folded."""


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def ran(path, tmp_path, **arrays):
    write_arrays(tmp_path / "in", arrays)
    (tmp_path / "outs").mkdir(exist_ok=True)
    (one,) = run(Job(path, (tmp_path / "in",), tmp_path / "outs"))
    assert one.ran, one.message
    return one.outputs()


def state_of(net):
    tensors = {name: one.clone() for name, one in net.state_dict().items()}
    return tensors, [one.training for one in net.modules()]


def same_state(before, after):
    assert before[1] == after[1]
    assert before[0].keys() == after[0].keys()
    return all(torch.equal(one, after[0][name]) for name, one in before[0].items())


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        *((name, "torchscript") for name in RECIPES),
        *((name, "dynamo") for name in WRITTEN_BY_BOTH),
        *(
            pytest.param(name, "dynamo", marks=pytest.mark.thorough)
            for name in RECIPES
            if name not in WRITTEN_BY_BOTH
        ),
    ],
)
def test_recipes_fold_to_no_batch_normalization(name, exporter, tmp_path):
    net = build(name)
    before = state_of(net)
    out = tmp_path / "out.onnx"
    result = bnfold.export(
        net, example(name), out, exporter=exporter, verify=name == "residual"
    )
    assert "BatchNormalization" not in operators(out)
    assert result.report.fold.counts_before["BatchNormalization"] == RECIPES[name].batch_norms
    assert not result.report.fold.stays
    assert same_state(before, state_of(net))
    assert [one.name for one in tmp_path.iterdir()] == ["out.onnx"]
    found = ran(out, tmp_path, input=example(name).numpy())["output"]
    with torch.no_grad():
        wide = build(name).double()(example(name).double()).numpy()
        own = np.abs(net(example(name)).numpy() - wide).max()
    assert np.abs(found - wide).max() <= 5 * max(own, 1e-7 * np.abs(wide).max())


@both
def test_a_verified_export_says_how_far_it_is_from_torch(exporter, tmp_path):
    result = bnfold.export(
        nets.conv_bn(),
        nets.image(),
        tmp_path / "o.onnx",
        exporter=exporter,
        dynamic_batch=True,
    )
    report = result.report
    assert report.exporter == exporter
    assert report.check.verdict is Verdict.PASSED
    assert report.verification.verdict is Verdict.PASSED
    assert {case["input"][0] for case in report.verification.cases} == {2, 3}
    errors = report.verification.metrics[0].reference
    assert 0 < errors.error_folded < 5 * errors.error_original
    assert report.inputs[0].shape == ("batch", 3, 8, 8)
    assert report.outputs[0].shape == ("batch", 4, 6, 6)
    assert operators(tmp_path / "o.onnx") == ["Conv", "Relu"]


@both
def test_open_sizes_run_at_other_sizes(exporter, tmp_path):
    net, out = nets.conv_bn(), tmp_path / "o.onnx"
    dynamic = "input.0=batch,input.2=height,input.3=width"
    bnfold.export(net, nets.image(1, 3, 8, 8), out, exporter=exporter, dynamic=dynamic)
    x = nets.image(5, 3, 11, 9)
    found = ran(out, tmp_path, input=x.numpy())["output"]
    with torch.no_grad():
        np.testing.assert_allclose(found, net(x).numpy(), rtol=1e-4, atol=1e-5)


@both
def test_names_and_structures(exporter, tmp_path):
    net, out = nets.ready(nets.Structured()), tmp_path / "o.onnx"
    pair = {"left": nets.image(3, 2), "right": nets.image(3, 4, seed=1)[:, :2]}
    net.linear = nn.Linear(4, 5).eval()
    offset = nets.image(3, 5)
    result = bnfold.export(
        net,
        (pair, 2.0),
        out,
        kwargs={"offset": offset},
        exporter=exporter,
        dynamic_batch=True,
        input_names=["l"],
    )
    assert [port.name for port in result.report.inputs] == ["l", "pair_right", "offset"]
    names = [port.name for port in result.report.outputs]
    assert names == ["scaled", "more_0", "more_1"]
    assert result.report.verification.passed
    feeds = {"l": pair["left"], "pair_right": pair["right"], "offset": offset}
    found = ran(out, tmp_path, **{name: one.numpy() for name, one in feeds.items()})
    with torch.no_grad():
        expected = net(pair, 2.0, offset=offset)
    np.testing.assert_allclose(found["more_0"], expected["more"][0], rtol=1e-4, atol=1e-5)


@both
def test_integers_as_inputs(exporter, tmp_path):
    net = nets.ready(nets.Tokens())
    ids = torch.arange(10).reshape(2, 5) % 9
    result = bnfold.export(net, ids, tmp_path / "o.onnx", exporter=exporter)
    assert result.report.inputs[0].dtype == "INT64"
    assert result.report.verification.passed
    assert "BatchNormalization" not in operators(tmp_path / "o.onnx")


def spellings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    bound = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))
    return {
        "functional": nets.ready(nets.FunctionalNorm()),
        "synchronised": nets.conv_bn(nn.SyncBatchNorm(4)),
        "subclass": nets.ready(nets.WithActivation()),
        "no affine": nets.conv_bn(nn.BatchNorm2d(4, affine=False)),
        "parametrised": nets.ready(bound),
        "weight norm": nets.ready(nn.Sequential(old, nn.BatchNorm2d(4))),
        "bias-free 3-d": nets.ready(
            nn.Sequential(nn.Conv3d(3, 4, 1, bias=False), nn.BatchNorm3d(4))
        ),
    }


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        *((name, "torchscript") for name in spellings()),
        *((name, "dynamo") for name in ("functional", "subclass", "bias-free 3-d")),
    ],
)
def test_other_spellings_fold_too(name, exporter, tmp_path):
    net = spellings()[name]
    before, kinds = state_of(net), [type(one) for one in net.modules()]
    x = nets.image(2, 3, 6, 6, 6) if "3-d" in name else nets.image()
    out, judged = tmp_path / "o.onnx", exporter == "torchscript"
    result = bnfold.export(net, x, out, exporter=exporter, verify=judged)
    assert set(operators(out)) <= {"Conv", "Relu", "Add"}
    if judged:
        assert result.report.verification.passed
    (found,) = ran(out, tmp_path, **{result.report.inputs[0].name: x.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, net(x).numpy(), rtol=1e-4, atol=1e-5)
    assert same_state(before, state_of(net))
    assert kinds == [type(one) for one in net.modules()]


@both
def test_statistics_of_the_batch_stay_and_are_explained(exporter, tmp_path):
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    net = nets.conv_bn(norm)
    out = tmp_path / "o.onnx"
    result = bnfold.export(net, nets.image(), out, exporter=exporter, verify=False)
    (stay,) = [one for one in result.report.fold.stays if one.rule == "BatchNormalization"]
    assert stay.refusals[0].code in (Code.BATCH_STATISTICS, Code.DYNAMIC_CONSTANT)
    assert "1 (BatchNorm2d): no running statistics" in result.report.warnings[0]


def test_train_mode_is_refused_and_the_modules_are_named(tmp_path):
    net = nets.conv_bn()
    net[1].train()
    with pytest.raises(ModelError, match="train mode") as caught:
        bnfold.export(net, nets.image(), tmp_path / "o.onnx")
    assert caught.value.where == "1 (BatchNorm2d)"
    assert "eval()" in caught.value.remedy
    assert not (tmp_path / "o.onnx").exists()
    assert [one.training for one in net] == [False, True, False]


@both
def test_eval_mode_is_taken_on_request_and_flags_stay(exporter, tmp_path):
    net = nets.conv_bn()
    net.train()
    net[0].eval()
    before = state_of(net)
    result = bnfold.export(
        net, nets.image(), tmp_path / "o.onnx", exporter=exporter, eval_mode=True
    )
    assert operators(tmp_path / "o.onnx") == ["Conv", "Relu"]
    assert result.report.verification.passed
    assert same_state(before, state_of(net))


@both
def test_a_spoiled_export_is_convicted_and_nothing_is_written(exporter, tmp_path, monkeypatch):
    from bnfold.exporting import working

    export = working.written

    def spoiled(request, kind, path):
        export(request, kind, path)
        proto = onnx.load(path)
        (weight,) = [one for one in proto.graph.initializer if len(one.dims) == 4]
        numbers = onnx.numpy_helper.to_array(weight).copy()
        numbers[2] *= 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(numbers, weight.name))
        onnx.save(proto, path)
        return ()

    monkeypatch.setattr(working, "written", spoiled)
    with pytest.raises(CheckFailedError, match="something else") as caught:
        bnfold.export(nets.conv_bn(), nets.image(), tmp_path / "o.onnx", exporter=exporter)
    assert "'output', channel 2" in caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_without_a_float64_reference_noise_decides(tmp_path):
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nets.conv_bn()

        def forward(self, x):
            return self.body(x).to(torch.float32)

    result = bnfold.export(Narrow().eval(), nets.image(), tmp_path / "o.onnx")
    assert result.report.verification.passed
    assert result.report.verification.referenced == 0
    assert "rounding noise alone" in result.report.verification.warnings[0]


class Branching(nn.Module):
    def forward(self, x):
        return 2 * x if x.sum() > 0 else 3 * x


def test_a_branch_that_tracing_fixed_is_convicted_and_the_tracer_is_quoted(tmp_path):
    with pytest.raises(CheckFailedError) as caught:
        bnfold.export(
            Branching().eval(), nets.image(), tmp_path / "o.onnx", exporter="torchscript"
        )
    assert "the tracer says" in caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_chance_is_not_judged(tmp_path):
    class Chance(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    result = bnfold.export(
        Chance().eval(), nets.image(), tmp_path / "o.onnx", exporter="torchscript"
    )
    assert result.report.verification.verdict is Verdict.NOT_JUDGED
    assert "chance" in result.report.verification.why


def test_an_input_that_is_returned_keeps_its_name(tmp_path):
    class Through(nn.Module):
        def forward(self, x, scale=2.0):
            return x, x * scale

    out = tmp_path / "o.onnx"
    result = bnfold.export(Through().eval(), (nets.image(), 3.0), out, dynamic_batch=True)
    assert [port.name for port in result.report.inputs] == ["x"]
    assert [port.shape[0] for port in result.report.outputs] == ["batch", "batch"]
    assert result.report.verification.passed


def test_buffers_that_evaluation_writes_are_copies(tmp_path):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return 2 * x

    net = Counting().eval()
    bnfold.export(net, nets.image(), tmp_path / "o.onnx", exporter="torchscript", verify=False)
    assert net.calls.item() == 0


def test_what_an_exporter_cannot_write_is_said_in_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="dynamo exporter cannot write") as caught:
        bnfold.export(Branching().eval(), nets.image(), tmp_path / "o.onnx", verify=False)
    assert "data-dependent" in caught.value.why
    assert "torch.where" in caught.value.remedy


def test_a_size_that_tracing_finds_fixed_is_named(tmp_path):
    """torch announces the conflict in one line, and names it in the next."""
    with pytest.raises(ModelError, match="dynamo exporter cannot write") as caught:
        bnfold.export(
            nets.conv_bn(),
            nets.image(),
            tmp_path / "o.onnx",
            dynamic="input.1=c",
            verify=False,
        )
    assert "static shape of 3 for dimension inputs['input'].shape[1]" in caught.value.why
    assert "leave this size closed" in caught.value.remedy


@pytest.mark.parametrize(
    ("exporter", "opset", "said"),
    [
        ("dynamo", 14, "does not write opset 14"),
        ("torchscript", 99, "cannot write this module"),
    ],
)
def test_an_opset_that_is_not_written_is_an_error(exporter, opset, said, tmp_path, capfd):
    """dynamo would write its own opset in silence, TorchScript print the whole graph."""
    with pytest.raises(ModelError, match=said) as caught:
        bnfold.export(
            nets.conv_bn(),
            nets.image(),
            tmp_path / "o.onnx",
            exporter=exporter,
            opset=opset,
            verify=False,
        )
    assert "another opset" in caught.value.remedy
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv1d(8, 8, 1), nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        y = self.bn(self.conv(x)).transpose(1, 2)
        return self.attention(y, y, y)[0]


def test_attention_is_traced_as_plain_operators(tmp_path):
    """In evaluation, without gradients, torch computes it by one operator of its own."""
    bnfold.export(
        Attending().eval(), torch.randn(2, 8, 5), tmp_path / "o.onnx", exporter="torchscript"
    )
    assert "BatchNormalization" not in operators(tmp_path / "o.onnx")
    assert torch.backends.mha.get_fastpath_enabled()


@both
def test_a_full_disk_is_not_laid_on_the_exporter(exporter, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OutputError, match="on the way") as caught:
        bnfold.export(
            nets.conv_bn(), nets.image(), tmp_path / "o.onnx", exporter=exporter, verify=False
        )
    assert caught.value.why == "No space left on device"
    assert "TMPDIR" in caught.value.remedy


def test_arguments_on_another_device_than_the_module(tmp_path):
    with pytest.raises(ModelError, match="does not run") as caught:
        bnfold.export(nets.conv_bn(), nets.image().to("meta"), tmp_path / "o.onnx")
    assert "the module is on cpu, the arguments are on meta" in caught.value.remedy


def test_half_precision(tmp_path):
    net = nets.conv_bn().half()
    result = bnfold.export(net, nets.image().half(), tmp_path / "o.onnx")
    assert result.report.verification.passed
    assert result.report.inputs[0].dtype == "FLOAT16"
    assert operators(tmp_path / "o.onnx") == ["Conv", "Relu"]


@pytest.mark.parametrize(
    ("dtype", "exporter"),
    [
        (torch.float64, "dynamo"),
        (torch.float64, "torchscript"),
        (torch.bfloat16, "dynamo"),
    ],
    ids=str,
)
def test_types_that_the_runtime_has_no_kernels_for_are_judged_all_the_same(
    dtype, exporter, tmp_path
):
    net, x = nets.conv_bn().to(dtype), nets.image().to(dtype)
    result = bnfold.export(net, x, tmp_path / "o.onnx", exporter=exporter)
    assert operators(tmp_path / "o.onnx") == ["Conv", "Relu"]
    assert result.report.verification.passed
    (warning,) = result.report.verification.warnings
    assert "own float64 evaluator" in warning
    assert "no other" in warning


def test_a_spoiled_model_in_float64_is_convicted(tmp_path, monkeypatch):
    from bnfold.exporting import working

    export = working.written

    def spoiled(request, kind, path):
        with torch.no_grad():
            request.model[0].weight[2] *= 1 + 1e-9
        return export(request, kind, path)

    monkeypatch.setattr(working, "written", spoiled)
    monkeypatch.setattr(working, "to_export", lambda user: user)
    net, kept = nets.conv_bn().double(), nets.conv_bn().double()
    monkeypatch.setattr(working, "as_it_is", lambda _: kept)
    with pytest.raises(CheckFailedError) as caught:
        bnfold.export(net, nets.image().double(), tmp_path / "o.onnx")
    assert "'output', channel 2" in caught.value.why


def test_bfloat16_needs_an_opset_that_tracing_does_not_write(tmp_path):
    net, x = nets.conv_bn().bfloat16(), nets.image().bfloat16()
    with pytest.raises(ModelError) as caught:
        bnfold.export(net, x, tmp_path / "o.onnx", exporter="torchscript")
    assert "dynamo" in caught.value.remedy
    assert "22" in caught.value.remedy


@both
def test_the_epsilon_of_a_float64_batch_norm_loses_nothing(exporter, tmp_path):
    net = nets.ready(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))).double()
    before = state_of(net)
    x = nets.image(3, 4).double()
    result = bnfold.export(net, x, tmp_path / "o.onnx", exporter=exporter)
    assert result.report.verification.passed  # a float32 epsilon would be 800 times the noise
    assert same_state(before, state_of(net))
    assert net[1].eps == 1e-5


@both
def test_converted_modules_export_as_torchs_do(exporter, tmp_path):
    net = nets.ready(nets.Branches())
    plain = bnfold.export(
        net,
        nets.image(),
        tmp_path / "p.onnx",
        exporter=exporter,
        verify=False,
        dynamic_batch=True,
    )
    converted = train.convert(net)
    assert "addition + relu" in train.fusions(converted).values()
    result = bnfold.export(
        converted, nets.image(), tmp_path / "o.onnx", exporter=exporter, dynamic_batch=True
    )
    assert result.report.verification.passed
    assert operators(tmp_path / "o.onnx") == operators(tmp_path / "p.onnx")
    assert [port.name for port in result.report.inputs] == ["x"]
    assert plain.report.fold.counts_before == result.report.fold.counts_before


def test_a_size_that_the_module_fixes_is_an_error(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return sum(x[index] for index in range(x.shape[0]))

    with pytest.raises(ModelError) as caught:
        bnfold.export(Fixed().eval(), nets.image(), tmp_path / "o.onnx", dynamic="x.0=n")
    assert caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_the_file_says_nothing_of_the_machine(tmp_path):
    result = bnfold.export(
        nets.conv_bn(), nets.image(), tmp_path / "o.onnx", verify=False, opset=20
    )
    text = (tmp_path / "o.onnx").read_bytes()
    assert b".py" not in text
    assert b"/" not in b"".join(one.name.encode() for one in result.to_proto().graph.node)
    assert result.report.verification is None
    assert result.report.opset == 20


def test_without_a_fold_batch_normalization_is_whole(tmp_path):
    bnfold.export(nets.conv_bn(), nets.image(), tmp_path / "o.onnx", fold=False)
    assert operators(tmp_path / "o.onnx") == ["Conv", "BatchNormalization", "Relu"]


def test_large_weights_go_to_a_file_beside(tmp_path, monkeypatch):
    from bnfold.exporting import exporters

    monkeypatch.setattr(exporters, "_INSIDE_BYTES", 0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 50), nn.BatchNorm1d(50))
    result = bnfold.export(nets.ready(net), nets.image(), tmp_path / "o.onnx")
    assert result.report.verification.passed
    assert sorted(one.name for one in tmp_path.iterdir()) == ["o.onnx", "o.onnx.data"]
    found = ran(tmp_path / "o.onnx", tmp_path, input=nets.image().numpy())["output"]
    with torch.no_grad():
        np.testing.assert_allclose(found, net(nets.image()).numpy(), rtol=1e-4, atol=1e-4)


def test_certificate_and_the_model_before_the_fold(tmp_path):
    result = bnfold.export(
        nets.conv_bn(),
        nets.image(),
        tmp_path / "o.onnx",
        unfolded=tmp_path / "u.onnx",
        certificate=True,
        verify=False,
    )
    (tmp_path / "c.json").write_text(result.certificate.to_json())
    judged = bnfold.verify(
        tmp_path / "u.onnx", tmp_path / "o.onnx", certificate=tmp_path / "c.json", run=False
    )
    assert judged.passed, judged.why


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"exporter": "none"}, UsageError, "no exporter"),
        ({"dynamic": "y.0=n"}, UsageError, "no such input"),
        ({"dynamic": "input.7=n"}, UsageError, "no axis 7"),
        ({"dynamic": "input"}, UsageError, "cannot be read"),
        ({"input_names": ["a", "b"]}, UsageError, "more names"),
        ({"output_names": ["a", "b"]}, UsageError, "more names"),
        ({"args": (1, 2)}, UsageError, "do not fit"),
        ({"args": ()}, UsageError, "do not fit"),
        ({"args": nets.image(1, 2, 3, 4)}, ModelError, "does not run"),
        ({"model": nn.ReLU}, UsageError, "cannot export a type"),
    ],
)
def test_nonsense_is_refused_with_words(change, error, said, tmp_path):
    asked = {
        "model": nets.conv_bn(),
        "args": nets.image(),
        "path": tmp_path / "o.onnx",
    } | change
    with pytest.raises(error, match=said):
        bnfold.export(**asked)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_found_out_first(tmp_path):
    with pytest.raises(OutputError):
        bnfold.export(nets.conv_bn(), nets.image(), tmp_path / "no" / "o.onnx")


def test_without_torch_the_extra_is_named():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import bnfold\n"
        "try: bnfold.export(None, None, 'o.onnx')\n"
        "except bnfold.errors.MissingDependencyError as error: print(error.remedy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "bnfold[train]" in done.stdout


def test_documents_keep_to_the_schema(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    from bnfold.report.to_html import to_html
    from bnfold.report.to_json import export_document
    from bnfold.report.to_markdown import to_markdown
    from docs.schemas import written

    result = bnfold.export(
        nets.conv_bn(), nets.image(), tmp_path / "o.onnx", dynamic_batch=True
    )
    document = json.loads(
        json.dumps(export_document(result.report, result.pictures, "a:b", "o"))
    )
    (schema,) = [json.loads(t) for p, t in written().items() if p.name == "export-report.json"]
    jsonschema.Draft202012Validator(schema).validate(document)
    assert "exported, the same function" in to_markdown(document)
    assert "Does it compute what torch does?" in to_html(document)
