"""The engine: backups, and all that is done with them. A module a verb, and the modules that several of them share."""
