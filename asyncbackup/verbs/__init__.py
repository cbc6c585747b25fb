"""What a person asks for: a module a verb, named like its command and its function. The machinery is the engine's."""
