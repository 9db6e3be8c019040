"""Results of a campaign in the formats of other programs: a table of formats, and a module each."""
