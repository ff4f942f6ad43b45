"""What the figures of `task=laughter` are called where people read them; every label says by itself what it means."""

FIGURES = {  # name in metrics.json, without its split -> what it is
    "ap": "average precision (AP)",
    "ap_lift": "AP over the prior",
    "auroc": "AUROC",
    "macro/ap": "AP, mean of episodes",
    "macro/auroc": "AUROC, mean of episodes",
    "precision": "precision of frames at the threshold",
    "recall": "recall of frames at the threshold",
    "f1": "F1 of frames at the threshold",
    "mcc": "MCC of frames at the threshold",
    "event/recall": "events announced at the threshold",
    "event/precision": "alarms that announce an event",
    "event/fa_per_hour": "false alarms per hour at the threshold",
    "event/lead_s/mean": "mean lead of alarms (s)",
    "event_h25/recall": "events announced at the threshold, up to 2 s before",
    "event_h25/fa_per_hour": "false alarms per hour at the threshold, where up to 2 s before is right",
    "event/recall_at_1_fa_per_hour": "events announced at 1 false alarm per hour",
    "event/recall_at_5_fa_per_hour": "events announced at 5 false alarms per hour",
    "event/recall_at_20_fa_per_hour": "events announced at 20 false alarms per hour",
    "sed/f1": "F1 of onsets, collar 0.2 s",
    "log_loss": "log loss (nats)",
    "brier": "Brier score",
    "ece": "calibration error",
    "uncalibrated/ece": "calibration error before calibration",
    "prior": "prior (share of positive frames)",
    "threshold": "threshold (probability)",
    "loss": "loss",
}
SPLITS = {"test": "", "val": "validation", "train": "training"}  # part before the name -> what its label says of it


def label(name: str) -> str:
    """Return what a figure of metrics.json or history.jsonl is called, e.g. of test/ap; "" where it has no label."""
    split, _, rest = name.partition("/")
    own, suffix = (rest, SPLITS[split]) if split in SPLITS else (name, "")
    known = FIGURES.get(own, "")
    return f"{known}, {suffix}" if known and suffix else known
