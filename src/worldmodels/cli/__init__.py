"""The command line: parse, call, print. Modules that are slow to import are imported by the verb that needs them."""
