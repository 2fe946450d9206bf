"""Tables in CSV files: what becomes of their columns, of new rows, and of files that are not as they should be."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_wine
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import d2ldrop
from d2ldrop import CSVData, DataError, Trainer, WeightsError
from d2ldrop.data import TablePreparation, read_table

pd = pytest.importorskip("pandas", reason="the extra csv is not installed")


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a text, or a data frame, to a CSV file."""

    def write(content, name="table.csv", **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8", newline="")
        else:
            content.to_csv(path, index=False, **options)
        return path

    return write


@pytest.fixture(scope="module")
def wine():
    """Return scikit-learn's wines with names of classes, and a column of text."""
    frame = load_wine(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
    frame["colour"] = np.where(frame["color_intensity"] > 5, "dark", "light")
    return frame


def test_columns_become_what_scikit_learn_makes_of_them(table, wine):
    """The oracle is fitted to the rows that are trained on, and applied to all."""
    data = CSVData(table(wine), "target")
    assert data.class_names == ["Barbera", "Barolo", "Grignolino"]
    assert (data.num_outputs, data.num_classes, data.is_regression, data.batch_size) == (3, 3, False, 16)
    names = [name for name in wine.columns if name not in ("target", "colour")]
    y = wine["target"].map({name: k for k, name in enumerate(data.class_names)}).to_numpy()
    rows = np.arange(len(wine))
    expected = d2ldrop.ArrayData(rows[:, None].astype(float), y)
    oracle = ColumnTransformer([("numbers", StandardScaler(), names), ("texts", OneHotEncoder(), ["colour"])])
    oracle.fit(wine.iloc[expected.split(True).X[:, 0].astype(int)])
    for train in (True, False):
        part = expected.split(train).X[:, 0].astype(int)
        np.testing.assert_array_equal(data.split(train).y, y[part])
        np.testing.assert_allclose(data.split(train).X, oracle.transform(wine.iloc[part]), rtol=1e-5, atol=1e-6)
    assert data.split(True).X.dtype == np.float32
    assert "142 rows to train on, 36" not in data.notes[0]
    assert (
        "143 rows to train on, 35 to validate on; 13 columns of numbers, 1 of text; target 'target': 3 classes"
        in (data.notes[0])
    )


def test_targets_of_a_regression_are_standardised_and_put_back(table):
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    data = CSVData(table(X.assign(progression=y)), "progression")
    assert (data.is_regression, data.num_outputs, data.preparation.classes) == (True, 1, [])
    train, val = (data.split(part).y for part in (True, False))
    assert train.shape[1] == 1
    assert (train.mean(), train.std()) == pytest.approx((0, 1), abs=1e-5)
    back = data.preparation.predictions(np.concatenate([train, val]))
    np.testing.assert_allclose(sorted(back), sorted(y), rtol=1e-4)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ("a b b a", "auto", ["a", "b"]),
        ("10 9 9 10", "auto", ["9", "10"]),  # in the order of the numbers
        ("1.0 2 1 2.00", "auto", ["1", "2"]),
        ("1.5 2 1 2", "auto", []),
        ("1.5 2 1 2", "classification", ["1", "1.5", "2"]),
        ("-1 1 -1 1", "auto", ["-1", "1"]),
        ("1 2 2 1", "regression", []),
        ("True False False True", "auto", ["False", "True"]),
        ("é\u00fc ☃ ☃ é\u00fc", "auto", ["é\u00fc", "☃"]),
        (" ".join(map(str, range(20))), "auto", [str(k) for k in range(20)]),
        (" ".join(map(str, range(21))), "auto", []),
    ],
)
def test_what_the_target_holds(table, values, task, classes):
    path = table("x,y\n" + "".join(f"{k},{value}\n" for k, value in enumerate(values.split())))
    data = CSVData(path, "y", task)
    assert (data.class_names, data.is_regression) == (classes, not classes)


def test_missing_values_are_replaced_and_noted(table):
    frame = pd.DataFrame({"a": [1.0, None, 3.0, 100.0] * 5, "b": ["x", None, "y", "x"] * 5, "y": ["p", "q"] * 10})
    data = CSVData(table(frame), "y")
    median = data.preparation.numbers["a"].median
    train = data.split(True).X
    assert median in (2.0, 3.0, 100.0)
    assert data.preparation.texts["b"] == ["", "x", "y"]
    assert data.notes[1:] == [
        f"column 'a': 5 values are missing; the median, {median:g}, takes their place",
        "column 'b': 5 values are missing; they count as a value of their own",
    ]
    known = data.preparation.numbers["a"]
    imputed = (median - known.mean) / known.deviation
    assert (np.isclose(train[:, 0], imputed) & (train[:, 1] == 1)).sum() >= 3
    assert (train[:, 1:].sum(axis=1) == 1).all()


def test_new_rows_may_be_in_another_order_and_hold_other_texts(table):
    frame = pd.DataFrame({"n": np.arange(20.0), "t": ["u", "v"] * 10, "same": [7] * 20, "y": ["p", "q"] * 10})
    prepared = CSVData(table(frame), "y").preparation
    columns = {name: frame[name].astype(str) for name in ("same", "t", "n")}
    np.testing.assert_array_equal(
        prepared.inputs(pd.DataFrame({**columns, "more": "z"})), prepared.inputs(frame.astype(str))
    )
    rows = prepared.inputs(pd.DataFrame({"n": ["9.5", None], "t": ["never seen", None], "same": ["7", "8"]}))
    assert rows[:, 2:].tolist() == [[0, 0], [0, 0]]  # neither u nor v
    assert rows[0, 1] == 0  # a constant column
    assert np.isfinite(rows).all()
    with pytest.raises(DataError, match="Missing: 'n', 't'"):
        prepared.inputs(pd.DataFrame({"same": ["7"]}))
    with pytest.raises(DataError, match=r"numbers in column 'n'\. Received 'many' in row 2"):
        prepared.inputs(pd.DataFrame({"n": ["1", "many"], "t": ["u", "u"], "same": ["7", "7"]}))


def test_only_frequent_texts_are_inputs(table):
    texts = [*["common"] * 150, *(f"rare {k}" for k in range(150))]
    data = CSVData(table(pd.DataFrame({"t": texts, "y": [k % 2 for k in range(300)]})), "y")
    assert data.split(True).X.shape[1] == 100
    assert "common" in data.preparation.texts["t"]
    assert "column 't': 151 different texts, the 100 most frequent are inputs" in data.notes
    assert set(data.split(True).X.sum(axis=1)) == {0, 1}


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_separators_are_found_out(table, wine, sep):
    path = table(wine, sep=sep)
    expected = CSVData(table(wine, "other.csv"), "target").split(True).X
    np.testing.assert_array_equal(CSVData(path, "target").split(True).X, expected)
    np.testing.assert_array_equal(CSVData(path, "target", sep=sep).split(True).X, expected)


ROWS = "1,2,p\n2,3,q\n3,4,p\n4,5,q\n5,7,p\n"


@pytest.mark.parametrize(
    "text",
    [
        "a,b,y\n" + ROWS,
        "\ufeffa,b,y\n" + ROWS,  # a byte order mark, as Excel writes
        "a,b,y\r\n" + ROWS.replace("\n", "\r\n"),
        "a,b,y\n" + ROWS.rstrip("\n"),
        "\n\na,b,y\n\n" + ROWS + "\n\n",
        "a, b, y\n" + ROWS.replace(",", " , "),
        '"a","b","y"\n' + "".join(f'"{line.replace(",", chr(34) + "," + chr(34))}"\n' for line in ROWS.split()),
        ",a,b,y\n" + "".join(f"{k},{line}\n" for k, line in enumerate(ROWS.split())),  # row numbers without a name
        "y,b,a\n" + "".join(",".join(reversed(line.split(","))) + "\n" for line in ROWS.split()),
    ],
)
def test_files_of_other_forms_hold_the_same(table, text):
    expected = CSVData(table("a,b,y\n" + ROWS, "plain.csv"), "y")
    data = CSVData(table(text), "y")
    assert data.notes[1:] == (["columns without a name are left out: 1"] if text.startswith(",") else [])
    order = [[*data.preparation.numbers].index(name) for name in ("a", "b")]
    np.testing.assert_array_equal(data.split(True).X[:, order], expected.split(True).X)
    assert data.class_names == expected.class_names == ["p", "q"]


def test_cells_may_hold_anything_in_quotes(table):
    odd = ['a "quoted", text\nover two lines', "plain"]
    data = CSVData(table(pd.DataFrame({"t": odd * 5, "y": [*"pq"] * 5})), "y")
    assert data.preparation.texts["t"] == odd
    assert data.split(True).X.shape == (8, 2)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "to be a CSV file in UTF-8. Received: No columns"),
        ("\n\n", {}, "to be a CSV file"),
        ("a,y\n", {}, "Expected rows below the names"),
        ("a,y\n1,2\n", {}, "at least 2 classes|at least 2 samples"),
        ("a,y\n1,2.5\n", {}, "at least 2 samples"),
        ("a,why\n1,p\n2,q\n", {}, "a column 'y' in .*It has: 'a', 'why'"),
        ("a,yy\n1,p\n2,q\n", {}, "Do you mean 'yy'"),
        ("a y\n1 p\n2 q\n", {}, "separated by something else, pass it as sep"),
        ("a,y\n1,p\n2,p\n", {}, "at least 2 classes in column 'y'. Received only 'p'"),
        ("a,b,y\n1,,p\n2,,q\n", {}, "values in column 'b'. It is empty: ignore it"),
        ("a,y\n1,\n2,\n", {}, "values in column 'y'. It is empty"),
        ("a,y\n1,p\n2,\n3,q\n", {}, "a value of 'y' in each row. Received none in row 2"),
        ("a,a,y\n1,2,p\n2,3,q\n", {}, "Received 'a' twice"),
        ("a,y,y\n1,2,p\n2,3,q\n", {}, "Received 'y' twice"),
        ("a,y\n1,p,3\n2,q,4\n", {}, "to be a CSV file"),
        ("a,y\n1,p\n2,q,4\n", {}, "to be a CSV file.*line 3"),
        ("y\np\nq\n", {}, "columns to predict 'y' from"),
        ("a,y\n1,p\n2,q\n", {"ignore": ["a"]}, "columns to predict 'y' from"),
        ("a,y\n1,p\n2,q\n", {"ignore": ["b"]}, "a column 'b'"),
        ("a,y\n1,p\n2,q\n", {"ignore": ["y"]}, "other columns than the target"),
        ("a,y\n1,p\n2,q\n", {"task": "regression"}, "numbers in column 'y'. Received 'p' in row 1"),
        ("a,y\n1,p\n2,q\n", {"task": "ranking"}, "task to be"),
        ("a,y\n1,p\n2,q\n", {"batch_size": 0}, "batch_size"),
        ("a,y\n" + "1,p\ninf,q\n" * 5, {}, "numbers below 1e100 in column 'a'. Received: inf"),
        ("a,y\n" + "1,p\n1e300,q\n" * 5, {}, "numbers below 1e100 in column 'a'. Received: 1e\\+300"),
        ("a,y\n" + "1,p\n2,q\n" * 5 + "1e300,p\n", {}, "column 'a'"),
        (b"\xff\xfea\x00,\x00y\x00", {}, "in UTF-8"),
        ("a,y\n1,é\n".encode("latin-1"), {}, "in UTF-8"),
        (b"PK\x03\x04\x00\x00\x00\xff", {}, "in UTF-8"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(table, content, options, message):
    with pytest.raises(d2ldrop.D2LDropError, match=message) as raised:
        CSVData(table(content), **{"target": "y", **options})
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_a_folder(tmp_path):
    with pytest.raises(d2ldrop.DataNotFoundError, match="There is no file of that name"):
        read_table(tmp_path / "nothing.csv")
    with pytest.raises(OSError, match="directory"):
        read_table(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error_of_this_library(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    path.write_bytes(content)
    lines = ["a table"]
    try:
        assert len(read_table(path))
    except d2ldrop.D2LDropError as error:
        lines = str(error).splitlines()
    assert len(lines) == 1


def test_columns_are_ignored(table, wine):
    data = CSVData(table(wine), "target", ignore=["colour", "alcohol"])
    assert not data.preparation.texts
    assert "alcohol" not in data.preparation.numbers
    assert data.split(True).X.shape[1] == 12


def test_the_preparation_is_plain_json(table, wine, tmp_path):
    data = CSVData(table(wine), "target")
    about = json.loads(json.dumps(data.preparation.as_json()))
    again = TablePreparation.from_json(about)
    frame = read_table(table(wine))
    np.testing.assert_array_equal(again.inputs(frame), data.preparation.inputs(frame))
    assert again == data.preparation


def broken(about):
    """Yield descriptions of a table that are wrong in one place each."""
    yield from (None, [], 3, "x", {})
    for key in about:
        yield {name: value for name, value in about.items() if name != key}
        yield from ({**about, key: wrong} for wrong in (None, 3, [[]], [3], {"x": 3}))
    for number in ("1", None, True, float("nan"), float("inf"), 10**400):
        yield {**about, "numbers": {"alcohol": {"mean": 0.0, "deviation": number, "median": 0.0}}}
    yield {**about, "numbers": {"alcohol": {"mean": 0.0, "deviation": 0.0, "median": 0.0}}}
    yield {**about, "scale": {"mean": 0.0, "deviation": -1.0, "median": 0.0}}
    yield {**about, "texts": {"colour": []}}
    yield {**about, "texts": {"colour": ["a", "a"]}}
    yield {**about, "texts": {"colour": "dark"}}
    yield {**about, "classes": ["a", "a"]}
    yield {**about, "numbers": {}, "texts": {}}


def test_a_description_that_is_not_one_is_refused(table, wine):
    about = CSVData(table(wine), "target").preparation.as_json()
    for wrong in broken(about):
        with pytest.raises(WeightsError, match="Expected weights of a table"):
            TablePreparation.from_json(wrong)


def test_a_table_is_learnt(table, wine):
    d2l = d2ldrop.backend("numpy")
    data = CSVData(table(wine), "target")
    model = d2l.DropoutMLP(num_outputs=3, num_hiddens_1=16, num_hiddens_2=16, dropout_1=0.1, dropout_2=0.1, lr=0.2)
    trainer = Trainer(8, seed=0, progress=False)
    trainer.fit(model, data)
    assert trainer.history[-1]["val_acc"] > 0.9
    frame = pd.read_csv(io.StringIO(wine.to_csv(index=False)), dtype=str)
    guesses = data.preparation.predictions(trainer.predict(data.preparation.inputs(frame)))
    assert (guesses == wine["target"]).mean() > 0.9


def test_the_how_to_runs(table, wine, monkeypatch):
    """The Python of `docs/own-data.md`, in order, beside a table of wines."""
    pytest.importorskip("torch")
    path = table(wine.rename(columns={"target": "cultivar"}), "wine.csv")
    table(wine.drop(columns="target").head(5), "new.csv")
    monkeypatch.chdir(path.parent)
    page = (Path(__file__).parent.parent / "docs" / "own-data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(block, names)
    assert [row["epoch"] for row in names["trainer"].history] == [1, 2, 3, 4, 5]
    assert names["table"].classes == ["Barbera", "Barolo", "Grignolino"]
