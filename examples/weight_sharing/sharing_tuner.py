"""A tuner in NNI's style whose trials inherit weights: a small population, each generation from the one before it.

The first `population` trials begin with new weights. Every later one descends from one of the generation before it: it
goes on with that trial's weights and changes its learning rate and momentum a little. Parents take their time, so
`generate_parameters` waits for their results: it may, since the config says `multi_thread = true`.
"""

import math
import os
import random
import threading

import tune.nni as nni


class SharingTuner(nni.Tuner):
    """Chooses hyper-parameters, a parent, and the two paths of each trial."""

    def __init__(self, save_dir_root, population=4):
        self.save_dir_root = save_dir_root
        self.population = population
        self.thread_lock = threading.Lock()
        self.events = {}  # by parameter id: set when its result is there
        self.individuals = {}  # by parameter id: its hyper-parameters
        self.results = {}  # by parameter id

    def update_search_space(self, search_space):
        self.space = search_space

    def generate_parameters(self, parameter_id):
        self.thread_lock.acquire()
        self.events[parameter_id] = threading.Event()
        parent_id = None if parameter_id < self.population else parameter_id - self.population
        self.thread_lock.release()

        if parent_id is not None:
            self.events[parent_id].wait()  # read after write: its result came after its weights
            parent_id = self.worth_inheriting(parent_id)
        if parent_id is None:
            individual = {name: self.drawn(name) for name in ("lr", "momentum")}
        else:
            individual = {name: self.near(name, self.individuals[parent_id][name]) for name in ("lr", "momentum")}
        self.individuals[parameter_id] = individual
        return {
            **individual,
            "save_path": self.path(parameter_id),
            "restore_path": None if parent_id is None else self.path(parent_id),
        }

    def receive_trial_result(self, parameter_id, parameters, value):
        self.thread_lock.acquire()
        self.results[parameter_id] = nni.extract_scalar_reward(value)
        self.thread_lock.release()
        self.events[parameter_id].set()

    def trial_end(self, parameter_id, success):
        self.events[parameter_id].set()  # a parent that failed must not keep its children waiting

    def worth_inheriting(self, parent_id):
        """The parent, or the best trial up to it: a lineage that has failed or fallen behind dies out."""
        with self.thread_lock:
            known = {other: value for other, value in self.results.items() if other <= parent_id}
        best = max(known, key=known.__getitem__, default=None)
        if parent_id in known and known[parent_id] >= known[best] - 0.02:
            return parent_id
        return best

    def path(self, parameter_id):
        return os.path.join(self.save_dir_root, f"{parameter_id}.npz")

    def drawn(self, name):
        low, high = self.space[name]["_value"]
        if self.space[name]["_type"] == "loguniform":
            return math.exp(random.uniform(math.log(low), math.log(high)))
        return random.uniform(low, high)

    def near(self, name, value):
        low, high = self.space[name]["_value"]
        return min(max(value * math.exp(random.gauss(0, 0.3)), low), high)
