"""Times that can be trusted: interleaved, in fresh processes, beside a null run."""
