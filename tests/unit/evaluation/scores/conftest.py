import numpy as np


def strings(rng, names, size):
    return rng.choice(np.array(names), size)


def clouds(rng, per_class=40, classes=3, dim=5, distance=3.0):
    labels = np.repeat(np.array([f"c{k}" for k in range(classes)]), per_class)
    features = rng.normal(size=(len(labels), dim))
    features[np.arange(len(labels)), np.repeat(np.arange(classes), per_class)] += distance
    return features, labels


def loop_scores(labels, predictions):
    """Everything counted one image at a time."""
    classes = sorted(set(labels))
    confusion = [[0] * len(classes) for _ in classes]
    for truth, guess in zip(labels, predictions):
        confusion[classes.index(truth)][classes.index(guess)] += 1
    per_class = []
    for k in range(len(classes)):
        hit = confusion[k][k]
        predicted = sum(row[k] for row in confusion)
        support = sum(confusion[k])
        precision = hit / predicted if predicted else 0.0
        recall = hit / support
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        per_class.append((precision, recall, f1, support))
    return confusion, per_class


def _wide(seed=0):
    """[60, 40] of twelve wells whose labels show in a direction of large variance, and a block of three numbers."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["a", "b", "c"], 20)
    signal = rng.normal(size=(60, 3)) + np.repeat(np.eye(3) * 3, 20, axis=0)
    wide = signal @ rng.normal(size=(3, 37)) + 0.3 * rng.normal(size=(60, 37))
    wells = np.char.add(labels, (np.arange(60) % 4).astype(str))
    return np.concatenate([wide, rng.normal(size=(60, 3))], axis=1), labels, wells
