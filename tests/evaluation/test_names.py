import pytest

from bmtl.evaluation.names import check_same_names, check_variable_name, unique_names


def test_a_name_twice_is_named():
    assert unique_names("task", ("a", "b")) == ["a", "b"]
    with pytest.raises(ValueError, match="The task name 'b' is given more than once"):
        unique_names("task", ["a", "b", "b"])


@pytest.mark.parametrize("name", ["affinity/nll", "", " ", " a", "a ", 3])
def test_names_that_a_file_cannot_hold_are_refused(name):
    with pytest.raises(ValueError, match="a variable's name must"):
        check_variable_name("observed", name)


def test_a_slash_gets_a_proposal():
    with pytest.raises(ValueError, match="Name it 'a_b'"):
        check_variable_name("observed", "a/b")


def test_missing_and_unknown_targets_are_named():
    check_same_names("pit", {"a": 1}, {"a": 2})
    with pytest.raises(ValueError, match="pit has no target 'b'"):
        check_same_names("pit", {"a": 1}, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="pit has a target 'c' that observed has not"):
        check_same_names("pit", {"a": 1, "c": 1}, {"a": 1})
