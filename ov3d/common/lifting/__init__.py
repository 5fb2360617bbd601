"""From pixels to points: projection, visibility, lifted features and their shared basis."""
