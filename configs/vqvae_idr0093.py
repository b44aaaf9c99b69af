"""VQ-VAE on idr0093 (genome-wide siRNA screen, 5 channels, 16 bit), or on simulated plates like its own.

    python launch.py --config=configs/vqvae_idr0093.py               the real set, once built; the seed's table
    python launch.py --config=configs/vqvae_idr0093.py:simulated     simulated plates; what `make demo` runs
    python launch.py --config=configs/vqvae_idr0093.py:tiny          simulated plates, seconds; what the tests run

The network is chosen by config.model.encoder: the seed's stack of 150 narrow residual layers, or a ResNet.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant: "", "simulated" or "tiny"."""
    config = _seed_table()
    if variant == "":
        return config
    if variant not in ("simulated", "tiny"):
        raise ValueError(f"configs/vqvae_idr0093.py:{variant}: the variants are 'simulated', 'tiny' and none")
    _simulated(config)
    if variant == "tiny":
        _tiny(config)
    return config


def _seed_table() -> ConfigDict:
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "idr0093"  # the set that is trained on, embedded and scored
    config.data.mix_with = ()  # further sets to train on; channels of other names are joined, missing ones masked
    config.data.mix_weights = (1.0,)  # share of each set in the batches: name's, then those of mix_with
    config.data.data_dir = "datasets"  # folder of built sets
    config.data.crop_size = 224  # pixels, side of a training view
    # "zscore": mean 0, sd 1; "percentile": 0.1 % to 0, 99.9 % to 1, not clipped; "percentile_clip": cut to 0..1
    config.data.normalization = "zscore"
    config.data.normalization_scope = "set"  # numbers of the whole "set", of each "plate", or of each "image"
    config.data.val_fraction = 0.1  # of the images; read when num_folds = 0
    config.data.num_folds = 0  # k of k-fold cross-validation; 0: none
    config.data.fold = 0  # which of the folds is held out
    config.data.split_by = "well"  # "image", "site", "well", "plate" or a column: a group is never on both sides
    config.data.read_threads = 16
    config.data.augment = ConfigDict()
    config.data.augment.flip = True
    config.data.augment.rotate90 = True
    config.data.augment.brightness = 0.1  # each channel times U(0.9, 1.1)

    config.model = ConfigDict()
    config.model.name = "vqvae"
    config.model.encoder = "residual_stack"  # or "resnet"
    config.model.residual_stack = ConfigDict()  # read when encoder = "residual_stack"
    config.model.residual_stack.num_hiddens = 16
    config.model.residual_stack.num_residual_hiddens = 32
    config.model.residual_stack.num_residual_layers = 150
    config.model.residual_stack.num_halvings = 2  # stride 4
    config.model.resnet = ConfigDict()  # read when encoder = "resnet"
    config.model.resnet.depth = 18
    config.model.latent_dim = 16  # numbers per image
    # "grid" quantises every position of the encoder's map, and the embedding is the usage of each code; "grouped" pools
    # first and quantises the pooled vector in groups of code_dim numbers with a codebook each.
    config.model.bottleneck = "grid"
    config.model.quantizer = ConfigDict()
    config.model.quantizer.num_codes = config.model.get_ref("latent_dim")  # the seed's num_embeddings, also 16
    config.model.quantizer.code_dim = 16  # numbers in a code
    config.model.quantizer.commitment_cost = 0.25
    config.model.quantizer.ema_decay = 0.99  # the seed's decay
    config.model.quantizer.restart_threshold = 0.05  # of an even share of the vectors; 0: never restart a code

    config.objective = ConfigDict()
    config.objective.name = "vqvae"

    # The seed's table also has momentum 0.9, t_max 50 and cycle_momentum False: names that its optimiser (LAMB) and its
    # scheduler never read. Its opt is `name` here, its warmup_lr `warmup_init_lr`.
    config.optimizer = ConfigDict()
    config.optimizer.name = "lamb"  # or "adamw"
    config.optimizer.lr = 1e-3  # peak, for the batch size below; not rescaled
    config.optimizer.weight_decay = 1e-4  # on every parameter, biases too
    config.optimizer.clip_norm = 1.0  # of the whole gradient, as timm's LAMB has it
    config.optimizer.warmup_epochs = 5
    config.optimizer.warmup_init_lr = 1e-6
    config.optimizer.min_lr = 1e-4
    config.optimizer.cooldown_epochs = 10  # at min_lr, after train.epochs

    config.train = ConfigDict()
    config.train.seed = 0
    config.train.epochs = 100  # without the cooldown
    config.train.batch_size = 64  # images, over all devices
    config.train.log_every_steps = 100
    config.train.eval_every_epochs = 1
    config.train.checkpoint_every_steps = 1000
    config.train.early_stopping_patience_epochs = 10  # epochs without a better validation loss; 0: never
    config.train.num_reconstructions = 4  # images in each picture
    config.train.wandb = "disabled"  # "offline", "online"

    config.eval = ConfigDict()
    config.eval.batch_size = 64  # images, over all devices
    config.eval.image_size = 0  # pixels, the middle part that is embedded; 0: all of it
    config.eval.label = "label"  # column that is predicted
    config.eval.group = "plate"  # column that is left out in turn
    config.eval.probe_control = "scrambled"  # label of the negative controls; "": none
    config.eval.folds = 5
    config.eval.knn_k = 1
    config.eval.bootstrap = 1000  # resamples for the intervals
    config.eval.umap = True
    config.eval.classical_baseline = True  # intensity, texture and region properties; 10 ms an image
    config.eval.max_report_points = 2000  # images in the interactive plot
    config.eval.seed = 0
    return config


def _simulated(config: ConfigDict) -> None:
    """2 CPU cores, about 5 minutes. A short stack: per second of training it learns most here."""
    config.data.name = "simulated"
    config.data.crop_size = 32
    config.data.normalization_scope = "plate"
    config.data.read_threads = 2
    config.model.residual_stack.num_hiddens = 64
    config.model.residual_stack.num_residual_layers = 2
    config.model.latent_dim = 128
    config.optimizer.lr = 4e-3
    config.optimizer.warmup_epochs = 2
    config.optimizer.cooldown_epochs = 2
    config.train.epochs = 60
    config.train.log_every_steps = 20
    config.train.eval_every_epochs = 6
    config.train.checkpoint_every_steps = 200
    config.train.early_stopping_patience_epochs = 0
    config.eval.bootstrap = 500


def _tiny(config: ConfigDict) -> None:
    config.model.residual_stack.num_hiddens = 8
    config.model.residual_stack.num_residual_hiddens = 8
    config.model.latent_dim = 16
    config.train.batch_size = 8
    config.optimizer.warmup_epochs = 1
    config.optimizer.cooldown_epochs = 1
    config.train.epochs = 2
    config.train.log_every_steps = 2
    config.train.eval_every_epochs = 1
    config.train.checkpoint_every_steps = 3
    config.eval.batch_size = 16
    config.eval.bootstrap = 20
