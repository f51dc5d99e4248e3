"""Tables, figures and scheme strips, drawn once for every command and report."""
