"""Rule files → rules → verdicts on every slice; and what rules would have done over history.

`load_rules` reads and lints `alert_rules/*.yml`; `evaluate` judges published values in one SQL statement; `replay`
says when each rule would have fired and, against labelled incidents, how well.
"""
