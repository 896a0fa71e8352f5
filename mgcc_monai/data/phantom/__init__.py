"""B-mode speckle phantoms with lesions and masks."""
