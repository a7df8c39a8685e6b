"""The engine: events, the fold over them, the log, the plug-in protocols, and the shell that runs an experiment."""
