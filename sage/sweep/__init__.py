"""Optuna studies over runs: what is searched (`settings`), where it is kept (`store`), the loop (`search`),
what a trial is worth (`value`), and the winner against its rivals on fresh seeds and games (`confirm`).
"""
