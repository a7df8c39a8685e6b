"""Tournament evolution of architectures, asynchronous (Real et al., Large-Scale Evolution of Image Classifiers, 2017).

The first `population` trials are random. Every later one draws two of the trials between one and two populations before
it, waits until both have ended, and changes the better one's architecture in one place; its weights come with it. What
is drawn depends on the request alone and the rest on results alone, so a rebuilt tuner answers the same.
"""

import math

from tune.engine.plugins import Suggested, Suggestion


class GeneticTuner:
    """An `async def suggest` may wait; `observe` and all requests share one thread, so nothing needs a lock."""

    concurrent = True

    def __init__(self, *, population=6, optimize_mode="maximize"):
        self.population = population
        self.sign = 1.0 if optimize_mode == "maximize" else -1.0
        self.trials = {}  # by number: (trial id, layers)

    def observe(self, fact):
        if isinstance(fact, Suggested):
            self.trials[fact.trial] = (fact.trial_id, fact.parameters["layers"])

    async def suggest(self, ask):
        draw, space = ask.generator(), ask.space.raw
        oldest, youngest = max(ask.trial - 2 * self.population, 0), ask.trial - self.population
        if youngest < 0:
            layers = [self.new_layer(draw, space, ask, index) for index in range(draw.integers(1, 3))]
            return Suggestion({"layers": layers, "inherit": None}, decision={"rule": "random"})
        rivals = sorted({int(number) for number in draw.integers(oldest, youngest + 1, 2)})
        scores = {}
        for number in rivals:
            ended = await ask.result_of(number)
            scores[number] = -math.inf if ended.value is None else self.sign * ended.value
        parent = max(rivals, key=scores.__getitem__)
        identity, layers = self.trials[parent]
        change, changed = self.mutated(draw, space, ask, layers)
        return Suggestion(
            {"layers": changed, "inherit": identity if scores[parent] > -math.inf else None},
            parents=(parent,),
            decision={"rule": change, "parent": parent, "rivals": rivals},
        )

    def mutated(self, draw, space, ask, layers):
        """One change: a layer more, a layer less, another width or another activation."""
        layers = [dict(layer) for layer in layers]
        ways = ["width", "activation"] + ["add"] * (len(layers) < space["max_layers"]) + ["remove"] * (len(layers) > 1)
        way = ways[draw.integers(len(ways))]
        at = int(draw.integers(len(layers)))
        if way == "add":
            layers.insert(at + 1, {**layers[at], "name": f"t{ask.trial}"})
        elif way == "remove":
            del layers[at]
        elif way == "width":
            layers[at]["width"] = space["widths"][draw.integers(len(space["widths"]))]
        else:
            layers[at]["activation"] = space["activations"][draw.integers(len(space["activations"]))]
        return way, layers

    def new_layer(self, draw, space, ask, index):
        """A layer keeps its name through all generations: by it the weights are inherited."""
        return {
            "name": f"t{ask.trial}.{index}",
            "width": space["widths"][draw.integers(len(space["widths"]))],
            "activation": space["activations"][draw.integers(len(space["activations"]))],
        }
