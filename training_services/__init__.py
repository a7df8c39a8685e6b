"""Training services: one file each says how a keeper is started somewhere, and how its channel is reached."""
