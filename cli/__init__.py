"""The command line: words and progress on standard error, JSON on standard output."""
