"""The benchmark, and the baselines that it measures against: `d2ldrop bench`."""
