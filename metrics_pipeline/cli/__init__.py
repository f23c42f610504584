"""The program `metrics`: every verb is a call into the packages below; here are only words, tables and exit codes.

`app` puts the commands together; one module for each group of commands, and `door`, `output` for what all of them need.
Nothing is imported here, so that a module costs what it needs itself.
"""
