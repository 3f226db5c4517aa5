"""Files of sections: a format each."""
