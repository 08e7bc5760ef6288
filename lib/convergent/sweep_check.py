"""What a notebook's own check says of parameter sets, asked of all of them at once before any run starts."""

from pathlib import Path

from . import execution


def refused(notebook: Path, sets: list[dict]) -> dict[int, str]:
    """Number of each set that the notebook's call of `check_parameters` refuses -> what it says.

    The cells of parameters and of the check are executed in one kernel, over and over with the values of each set. A
    notebook without such a check refuses nothing.

    Parameters
    ----------
    sets : every parameter of the notebook, for each run
    """
    execution.skip_grammar_of_addresses()
    import nbformat

    source = nbformat.read(notebook, 4)
    defaults = next(c.source for c in source.cells if "parameters" in c.metadata.get("tags", []))
    checks = [c.source for c in source.cells if c.cell_type == "code" and "check_parameters(" in c.source]
    if not checks:
        return {}
    asked = nbformat.v4.new_notebook(metadata=source.metadata)
    for parameters in sets:
        given = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())])
        asked.cells += [nbformat.v4.new_code_cell(code) for code in (defaults, given, checks[0])]
    from nbclient import NotebookClient

    with execution.kernel_of_this_python():
        NotebookClient(asked, kernel_name="python3", allow_errors=True).execute()
    said = {}
    for i, cell in enumerate(asked.cells[2::3]):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            said[i] = f"{errors[0].ename}: {errors[0].evalue}"
    return said
