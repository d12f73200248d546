"""A model-based test of the training engine under faults that a seed draws.

Plan       drawn by a seed: star, ring or elastic; wire; workers; what happens to whom at which event
Scenario   runs it: the real coordinator, and the real workers' end in processes that stand for tasks
Model      says what every round must bring, element by element: the net adds a known number in a step

./run bench faults --args '--seeds 200'          the plans of seeds 0 to 199
./run bench faults --args '--replay 17 --log'    one again, with what its workers logged
"""
