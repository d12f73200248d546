"""Many runs of one net that differ in what is compared: algorithm, workers, tau, overlap, wire, seed.

    FILE.toml ── study.py ──> Study ── trials ──> trial.py, one after the other or in processes
                                                      └──> results.py: runs.jsonl ──> results.csv
                                                                └──> page.py: report.html, curves.png, ...

All workers of a run are in one process (``local.py``), where weights are those of a cluster bit for bit, and
time is not: accuracy is compared by steps and images, not by seconds.
"""
