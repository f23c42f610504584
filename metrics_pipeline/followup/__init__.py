"""What follows an alert: answers → how good each rule is → proposals → a reviewed change → its measured effect → retrospective.

In the order of the way: `answers` (what people said of each episode), `quality` (precision, delay, load, noise per rule),
`edits` (a rule file with some keys of one rule changed), `verdicts` (what a rule said of answered episodes), `methods` (which
change the answers suggest), `impact` (what it would have changed, by replay), `proposals` (made, accepted by a person,
rejected), `effect` (measured afterwards), `new_rules` (thresholds for a rule that is not there yet), `retrospective` and
`page` (a week, an episode). Nothing here changes a rule by itself.
"""
