"""Neural architecture search: choices, mutators and the zoo join the house here; the data forms of a choice stand in
engine/space.py (`layer_choice`, `input_choice`)."""
