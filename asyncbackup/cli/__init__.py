"""The command line: a module a verb; the only package that prints, and where errors become exit codes."""
