"""Pre-flight: can this base model be personalized by hindsight, and with which settings?

    personalize calibrate MODEL

The method teaches a model only what it already does when told. So before anybody learns, a model is asked generic
questions, told wishes that a rule can check, and read with and without them, by the code that serves and learns.
`gates` and `proposal` decide from plain numbers; everything else measures.
"""
