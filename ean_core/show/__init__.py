"""Tables, figures and scheme strips shared by all commands and reports."""
