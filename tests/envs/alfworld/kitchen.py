"""A hand-made kitchen in the official file format, small enough to know every sentence by heart.

Two cabinets share a location; there are two apples; the mug is said to be in a cabinet and on the countertop;
the cup holds a spoon. The task is to heat an apple and put it on the side table.
"""

from __future__ import annotations

import json
from pathlib import Path

SENTENCE = "heat some apple and put it in sidetable"

OBJECTS = """
    agent1 - agent
    AppleType KnifeType ButterKnifeType CupType SpoonType MugType DeskLampType WindowType - otype
    CabinetType CounterTopType FridgeType MicrowaveType SinkType SinkBasinType SideTableType - rtype
    Apple_bar_1 Apple_bar_2 Knife_bar_1 Cup_bar_1 Spoon_bar_1 Mug_bar_1 DeskLamp_bar_1 Window_bar_1 - object
    Cabinet_bar_1 Cabinet_bar_2 CounterTop_bar_1 Fridge_bar_1 Microwave_bar_1 SideTable_bar_1 - receptacle
    Sink_bar_1_bar_SinkBasin - receptacle
    loc_bar_0 loc_bar_1 loc_bar_2 loc_bar_3 loc_bar_4 loc_bar_5 loc_bar_6 - location
"""

FACTS = """
    (receptacleType Cabinet_bar_1 CabinetType) (receptacleType Cabinet_bar_2 CabinetType)
    (receptacleType CounterTop_bar_1 CounterTopType) (receptacleType Fridge_bar_1 FridgeType)
    (receptacleType Microwave_bar_1 MicrowaveType) (receptacleType SideTable_bar_1 SideTableType)
    (receptacleType Sink_bar_1_bar_SinkBasin SinkBasinType)
    (objectType Apple_bar_1 AppleType) (objectType Apple_bar_2 AppleType) (objectType Knife_bar_1 KnifeType)
    (objectType Cup_bar_1 CupType) (objectType Spoon_bar_1 SpoonType) (objectType Mug_bar_1 MugType)
    (objectType DeskLamp_bar_1 DeskLampType) (objectType Window_bar_1 WindowType)
    (canContain CabinetType MugType) (canContain CabinetType CupType) (canContain CounterTopType MugType)
    (canContain CounterTopType AppleType) (canContain CounterTopType KnifeType)
    (canContain CounterTopType CupType) (canContain SideTableType AppleType)
    (canContain FridgeType AppleType) (canContain MicrowaveType AppleType)
    (canContain SinkBasinType AppleType)
    (pickupable Apple_bar_1) (pickupable Apple_bar_2) (pickupable Knife_bar_1) (pickupable Cup_bar_1)
    (pickupable Spoon_bar_1) (pickupable Mug_bar_1)
    (cleanable Apple_bar_1) (cleanable Apple_bar_2) (heatable Apple_bar_1) (heatable Apple_bar_2)
    (coolable Apple_bar_1) (coolable Apple_bar_2) (sliceable Apple_bar_1) (sliceable Apple_bar_2)
    (toggleable DeskLamp_bar_1) (isReceptacleObject Cup_bar_1) (inReceptacleObject Spoon_bar_1 Cup_bar_1)
    (openable Cabinet_bar_1) (openable Cabinet_bar_2) (openable Fridge_bar_1) (openable Microwave_bar_1)
    (atLocation agent1 loc_bar_0)
    (receptacleAtLocation Cabinet_bar_1 loc_bar_1) (receptacleAtLocation Cabinet_bar_2 loc_bar_1)
    (receptacleAtLocation CounterTop_bar_1 loc_bar_2) (receptacleAtLocation Fridge_bar_1 loc_bar_3)
    (receptacleAtLocation Microwave_bar_1 loc_bar_4) (receptacleAtLocation Sink_bar_1_bar_SinkBasin loc_bar_5)
    (receptacleAtLocation SideTable_bar_1 loc_bar_6)
    (inReceptacle Apple_bar_1 CounterTop_bar_1) (inReceptacle Apple_bar_2 CounterTop_bar_1)
    (inReceptacle Knife_bar_1 CounterTop_bar_1) (inReceptacle Cup_bar_1 CounterTop_bar_1)
    (inReceptacle Mug_bar_1 Cabinet_bar_1) (inReceptacle Mug_bar_1 CounterTop_bar_1)
    (inReceptacle DeskLamp_bar_1 SideTable_bar_1)
    (objectAtLocation Apple_bar_1 loc_bar_2) (objectAtLocation Apple_bar_2 loc_bar_2)
    (objectAtLocation Knife_bar_1 loc_bar_2) (objectAtLocation Cup_bar_1 loc_bar_2)
    (objectAtLocation Mug_bar_1 loc_bar_1) (objectAtLocation DeskLamp_bar_1 loc_bar_6)
    (objectAtLocation Window_bar_1 loc_bar_0)
"""

GOAL = """
    (:goal (and (exists (?r - receptacle) (exists (?o - object) (and (heatable ?o) (objectType ?o AppleType)
        (receptacleType ?r SideTableType) (isHot ?o) (inReceptacle ?o ?r))))))
"""


def write_kitchen(folder: Path, facts: str = FACTS, goal: str = GOAL, name: str = "pick_heat-Apple") -> Path:
    """The game file, in a folder named like an official one. Needs the wheel's domain and grammar."""
    from sage.envs.alfworld.simulator.floorplans import domain_and_grammar

    domain, grammar = domain_and_grammar()
    path = folder / name / "trial_1" / "game.tw-pddl"
    path.parent.mkdir(parents=True)
    problem = f"(define (problem kitchen) (:domain alfred) (:objects {OBJECTS}) (:init {facts}) {goal})"
    path.write_text(json.dumps({
        "pddl_domain": domain, "grammar": grammar.replace("UNKNOWN GOAL", SENTENCE), "pddl_problem": problem,
        "solvable": True, "walkthrough": [],
    }))
    return path
