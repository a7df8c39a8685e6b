"""The web portal: an experiment in the browser, over its log and its engine's socket, in a process of its own."""
