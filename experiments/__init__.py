"""The questions: runs, studies, their tables and figures, and the command line."""
