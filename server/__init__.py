"""HTTP in, HTTP out: the OpenAI chat surface and the management routes of the SDK. Knows no tensors and no SQL."""
