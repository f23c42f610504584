"""The catalogue site: every metric as a page of a folder that opens without a server, in Chinese and English.

`content` gathers what the pages say (definitions, published values, rules, episodes, all read in bulk), `formula`,
`graph` and `chart` draw, `pages` renders, `folder` puts the result in the place of the former one.
"""
