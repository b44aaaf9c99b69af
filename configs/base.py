"""Every key there is, with its unit, as the predecessor's table has it; the files beside this one say what is theirs.

This is no run: `python launch.py --config=configs/vqvae_idr0093.py` is one.
"""

from ml_collections import ConfigDict


def get_config(variant: str, file: str) -> ConfigDict:
    """The table, in one of three sizes.

    Args:
        variant: "": the predecessor's run of idr0093. "simulated": plates like its own, minutes on 2 CPU cores.
            "tiny": the same plates, seconds; what the tests run.
        file: name of the asking file, for the message.

    Raises:
        ValueError: for another variant.
    """
    config = _predecessor_table()
    if variant == "":
        return config
    if variant not in ("simulated", "tiny"):
        raise ValueError(f"configs/{file}.py:{variant}: the variants are 'simulated', 'tiny' and none")
    _simulated(config)
    if variant == "tiny":
        _tiny(config)
    return config


def get_view_config(variant: str, file: str) -> ConfigDict:
    """The table for methods that compare views, in the same sizes: no decoder, and a network that turns and mirrors.

    Args:
        variant: as in `get_config`.
        file: name of the asking file, for the message.

    Raises:
        ValueError: for another variant.
    """
    config = get_config(variant, file)
    config.model.decoder = "none"
    config.model.encoder = "resnet"
    config.model.latent_dim = 512
    config.objective.reconstruction = 0.0
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_biases_and_norms = False
    config.optimizer.min_lr = 1e-6
    config.optimizer.cooldown_epochs = 0
    config.train.batch_size = 256
    config.train.early_stopping_patience_epochs = 0
    config.eval.readout = "layers"  # said more than the embedding on all sets of experiments/learning
    if variant:
        # Stages of 24 to 192 channels: a ResNet-18 takes as long for an epoch as this one for eight.
        config.model.resnet.depth = 10
        config.model.resnet.width = 24
        config.model.resnet.stem = "small"
        config.model.latent_dim = 128
    if variant == "tiny":
        config.model.resnet.width = 8
        config.model.head.width = 16
        config.model.head.output_dim = 8
        config.model.head.num_prototypes = 16
        config.model.latent_dim = 16
        config.train.batch_size = 8
    return config


def get_shape_config() -> ConfigDict:
    """The table for outlines: a network over the ring of their points, and one that draws points."""
    config = _predecessor_table()
    _shapes(config)
    return config


def apply_shape_variant(config: ConfigDict, variant: str, file: str) -> ConfigDict:
    """A finished table of a configuration for outlines, or its small one.

    Args:
        config: the table, changed in place.
        variant: "": minutes on 2 CPU cores, as it is. "tiny": two epochs of a small network; what the tests run.
        file: name of the asking file, for the message.

    Raises:
        ValueError: for another variant.
    """
    if variant not in ("", "tiny"):
        raise ValueError(f"configs/{file}.py:{variant}: the variants are 'tiny' and none")
    if variant == "tiny":
        _tiny(config)
        config.model.ring.width, config.model.ring.depth = 16, 2
        config.model.quantizer.num_groups = 2
    return config


def tables() -> list[ConfigDict]:
    """Every table of this file: what a key holds where no run reads it."""
    shapes = [apply_shape_variant(get_shape_config(), variant, "base") for variant in ("", "tiny")]
    variants = ("", "simulated", "tiny")
    images = [table(variant, "base") for table in (get_config, get_view_config) for variant in variants]
    return [*images, *shapes]


def _predecessor_table() -> ConfigDict:
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.kind = "images"  # "shapes": a set of outlines (data.build --kind=shapes), seen as distance matrices
    config.data.name = "idr0093"  # the set that is trained on, embedded and scored
    config.data.mix_with = ()  # further sets to train on; channels of other names are joined, missing ones masked
    config.data.mix_weights = (1.0,)  # share of each set in the batches: name's, then those of mix_with
    config.data.data_dir = "datasets"  # folder of built sets
    # Pixels, height and width of a training view; of shapes (P, P), the points of each outline: a divisor of the set's.
    config.data.crop_size = (224, 224)
    # "zscore": mean 0, sd 1; "percentile": 0.1 % to 0, 99.9 % to 1, not clipped; "percentile_clip": cut to 0..1
    config.data.normalization = "zscore"
    config.data.normalization_scope = "set"  # numbers of the whole "set", of each "plate", or of each "image"
    config.data.val_fraction = 0.1  # of the images; read when num_folds = 0
    config.data.num_folds = 0  # k of k-fold cross-validation; 0: none
    config.data.fold = 0  # which of the folds is held out
    config.data.split_by = "well"  # "image", "site", "well", "plate" or a column: a group is never on both sides
    # Column whose values are on both sides of the division into training and validation where they have two groups of
    # split_by: up to twice val_fraction for it. It places groups and teaches nothing. "": none.
    config.data.stratify_by = "label"
    # Plates, or other values of the column held_out_by (as split_by has them), that are neither trained nor validated
    # on nor in any other score: they are embedded, and classified by what was learned from all the rest.
    config.data.held_out = ()
    config.data.held_out_by = "plate"  # read when held_out names any
    config.data.read_threads = 16
    # What is compared with an image, by methods that compare views: another view of the "same_image"; of another "site"
    # of its well; of another well or plate of its "treatment", a column, which then teaches the encoder.
    config.data.positives = "same_image"
    config.data.treatment = "label"  # read when positives = "treatment"
    config.data.augment = ConfigDict()  # read when kind = "images", like normalization
    config.data.augment.flip = True
    config.data.augment.rotate90 = True
    config.data.augment.brightness = 0.1  # each channel times U(0.9, 1.1)
    # The window's share of the image's area, from U(low, high), seen through crop_size pixels; (0, 0): a window of
    # crop_size pixels at the image's own scale, where size means something.
    config.data.augment.area = (0.0, 0.0)
    config.data.augment.aspect = 1.0  # the window is longer along an axis by up to this factor; 1 where area is (0, 0)
    config.data.augment.rotate = False  # by any angle; resampled, so a little smoother than rotate90, and in its place
    config.data.augment.offset = 0.0  # a: each channel plus U(-a, a), in normalized units
    config.data.augment.gamma = 0.0  # a: each channel's share of its range to the power exp(U(-a, a))
    config.data.augment.blur = 0.0  # a: by a Gaussian of standard deviation U(0, a) pixels
    config.data.augment.noise = 0.0  # a: normal noise of standard deviation U(0, a), in normalized units
    config.data.augment.channel_dropout = 0.0  # chance that a channel is 0 in a view; never all of an image
    config.data.outline = ConfigDict()  # read when kind = "shapes"
    # What of a view is random: "start", "start_and_direction", or "none".
    config.data.outline.reindex = "start_and_direction"
    config.data.outline.noise = 0.05  # sd of a smooth displacement of the boundary, of the outline's RMS radius
    config.data.outline.stretch = 0.3  # the outline is longer by a factor up to e^0.3 along some axis, thinner across
    config.data.outline.unevenness = 0.3  # points stand closer here and further apart there, by up to this share

    config.model = ConfigDict()
    config.model.name = "vqvae"  # or "ae", "vae", "mae", "simclr", "dino", "lejepa"
    config.model.encoder = "residual_stack"  # or "resnet", "vit"; of shapes also "ring"
    # "mirror": the encoder's own counterpart; of shapes also "points", whose distances are the matrix, and "matrix".
    # "none": of "simclr", "dino" and "lejepa", which need none; with one they reconstruct, too.
    config.model.decoder = "mirror"
    config.model.pretrained = (
        ""  # folder or .safetensors file of Hugging Face weights for the encoder; "": random start
    )
    # "joint": one network sees all channels; "independent": one network sees each channel alone; "tokens": a ViT with
    # tokens of its own for every channel.
    config.model.channels = "joint"
    config.model.channel_readout = "mean"  # or "concat": how the embeddings of channels become one; read when not joint
    config.model.channel_dropout = 0.0  # chance that a channel is left out in training; read when channels = "tokens"
    config.model.residual_stack = ConfigDict()  # read when encoder = "residual_stack"
    config.model.residual_stack.num_hiddens = 16
    config.model.residual_stack.num_residual_hiddens = 32
    config.model.residual_stack.num_residual_layers = 150
    config.model.residual_stack.num_halvings = 2  # stride 4
    config.model.resnet = ConfigDict()  # read when encoder = "resnet"
    config.model.resnet.depth = 18  # 10, 18, 34, 50, 101, 152
    config.model.resnet.width = 64  # channels of the first of four stages, each of which has twice those before it
    # "large": 7 x 7 and pooling, stride 4, as published; "small": 3 x 3, stride 2, for images of 128 pixels and less;
    # "full": 3 x 3, stride 1, for single cells.
    config.model.resnet.stem = "large"
    config.model.resnet.padding = "zeros"  # "circular": for the matrices of closed outlines
    config.model.ring = ConfigDict()  # read when encoder = "ring"
    config.model.ring.width = 64
    config.model.ring.depth = 5  # convolutions
    config.model.ring.kernel_size = 5  # points
    # What an embedding depends on beside the form: "nothing"; the "direction" of the outline, so that mirror images
    # differ; or its "start", and with it how the outline lies.
    config.model.ring.keeps = "nothing"
    config.model.vit = ConfigDict()  # read when encoder = "vit"
    config.model.vit.size = "S"  # "Ti", "S", "B", "L", "H"
    config.model.vit.patch_size = 16  # pixels: 8, 14, 16
    config.model.vit.positions = "sincos"  # fixed, for any image size; "learnt": for crop_size alone
    config.model.vit.layer_scale = False  # True for DINOv2's weights
    config.model.vit.decoder_width = 512
    config.model.vit.decoder_depth = 8
    config.model.vit.decoder_heads = 16
    # Numbers per image. A grid of codes has as many codes, or with quantizer.num_codes more: then these are principal
    # components of how often each occurs.
    config.model.latent_dim = 16
    # Read by "vqvae": "grid" quantizes every position of the encoder's map, and the embedding is the usage of each
    # code; "pooled" pools first and quantizes the pooled vector in groups of code_dim numbers with a codebook each.
    config.model.bottleneck = "grid"
    # From a latent vector to a map: "dense" (fixed size) or "broadcast" with the positions as channels (any size).
    config.model.spread = "dense"
    config.model.quantizer = ConfigDict()  # read by "vqvae"
    config.model.quantizer.name = "ema"  # or "gradient", "residual", "fsq"
    config.model.quantizer.num_codes = config.model.get_oneway_ref("latent_dim")  # its num_embeddings, also 16
    config.model.quantizer.code_dim = 16  # numbers in a code
    config.model.quantizer.num_groups = 1  # codebooks side by side, each for code_dim numbers
    config.model.quantizer.num_residuals = 4  # codebooks one after the other; read when name = "residual"
    config.model.quantizer.levels = (8, 5, 5)  # values of each number; read when name = "fsq"
    config.model.quantizer.commitment_cost = 0.25  # this and what follows: not read when name = "fsq"
    config.model.quantizer.codebook_cost = 1.0  # of the codebook's own term; read when name = "gradient"
    config.model.quantizer.ema_decay = 0.99  # the predecessor's decay
    config.model.quantizer.restart_threshold = 0.05  # of an even share of the vectors; 0: never restart a code
    config.model.quantizer.kmeans_iterations = 0  # of k-means on the first batch; 0: codes start at random
    config.model.mae = ConfigDict()  # read by "mae"
    config.model.mae.mask_ratio = 0.75  # share of the patches that is removed
    config.model.mae.norm_pix_loss = True  # patches are predicted less their mean, over their standard deviation
    config.model.head = ConfigDict()  # behind the embedding; read by "simclr", "dino" and "lejepa"
    config.model.head.width = 512  # of the layers between
    config.model.head.depth = 3  # dense layers
    config.model.head.output_dim = 128  # numbers that views are compared by
    config.model.head.num_prototypes = 1024  # read by "dino"
    # Products and convolutions in forms that are fast on a CPU, equal to rounding; False: the compiler's own on every
    # device, slower on a CPU, which have forward-mode derivatives (jax.jvp, jax.hessian) too.
    config.model.cpu_kernels = True

    config.objective = ConfigDict()
    config.objective.reconstruction = 1.0  # weight of the reconstruction's term
    config.objective.beta = 1.0  # weight of the KL divergence; read by "vae", like the next two
    config.objective.free_nats = 0.0  # nats per dimension of a latent vector that cost nothing
    config.objective.kl_warmup_steps = 0  # optimizer steps in which beta grows from 0
    config.objective.fourier_weight = 0.0  # of the Fourier term; read by "mae"
    config.objective.crops = ConfigDict()  # the views that "simclr", "dino" and "lejepa" compare
    config.objective.crops.num_global = 2  # of data.crop_size, as data.augment says
    config.objective.crops.num_local = 0  # smaller ones beside them
    config.objective.crops.local_size = (16, 16)  # pixels
    config.objective.crops.local_area = (0.0, 0.0)  # of them what data.augment.area is of the others
    config.objective.simclr = ConfigDict()  # read by "simclr"
    config.objective.simclr.temperature = 0.2
    config.objective.dino = ConfigDict()  # read by "dino"
    config.objective.dino.student_temperature = 0.1
    config.objective.dino.teacher_temperature = 0.04
    config.objective.dino.teacher_temperature_start = 0.04  # at the first step, grows in the steps of the next line
    config.objective.dino.teacher_temperature_steps = 0
    config.objective.dino.targets = "center"  # what keeps all prototypes in use: their moving "center", or "sinkhorn"
    config.objective.dino.center_momentum = 0.9  # read when targets = "center"
    config.objective.dino.koleo = 0.0  # weight of the term that keeps embeddings of a batch apart
    config.objective.dino.frozen_prototype_steps = 0  # first steps in which the prototypes do not learn
    config.objective.lejepa = ConfigDict()  # read by "lejepa"
    config.objective.lejepa.sigreg = 0.85  # share of the term that makes projections normally distributed
    config.objective.lejepa.num_slices = 256  # directions in which it looks at them, drawn in each step
    config.objective.contrastive = ConfigDict()
    config.objective.contrastive.weight = 0.0  # 0: no contrastive term
    # "views": another random view of an image is its positive; "channels": its other channels are; "pull": the same
    # without negatives; "replicates": images of the same treatment on another plate. Negatives are of other wells (of
    # other fields where no well is known), for "replicates" of other treatments too; of copies in a batch one counts.
    config.objective.contrastive.form = "channels"
    config.objective.contrastive.temperature = 0.1
    config.objective.contrastive.treatment = "label"  # column; read when form = "replicates"
    config.objective.matrix = ConfigDict()  # read when data.kind = "shapes"; the last four are weights
    config.objective.matrix.reindexed = False  # True: the error is that of the best start point and direction
    config.objective.matrix.diagonal = 0.0
    config.objective.matrix.symmetry = 0.0
    config.objective.matrix.non_negativity = 0.0
    config.objective.matrix.triangle = 0.0

    # The predecessor's table also has momentum 0.9, t_max 50 and cycle_momentum False: names that its optimizer (LAMB)
    # and its scheduler never read. Its opt is `name` here, its warmup_lr `warmup_init_lr`.
    config.optimizer = ConfigDict()
    config.optimizer.name = "lamb"  # or "adamw", "sgd"
    config.optimizer.lr = 1e-3  # peak, for the batch size below; not rescaled
    config.optimizer.weight_decay = 1e-4
    config.optimizer.weight_decay_growth = 1.0  # by this factor it grows over the run, as half a cosine
    config.optimizer.decay_biases_and_norms = True  # as the predecessor had it; False: as timm does
    config.optimizer.momentum = 0.9  # read by "sgd"
    config.optimizer.beta1 = 0.9  # read by "lamb" and "adamw", like the next
    config.optimizer.beta2 = 0.999
    config.optimizer.clip_norm = 1.0  # of the whole gradient, as timm's LAMB has it; 0: no clipping
    # Each block of a ViT or ResNet learns slower by this factor than the next.
    config.optimizer.layer_decay = 1.0
    config.optimizer.freeze = ()  # paths of parameters that do not learn, e.g. ("encoder",)
    config.optimizer.warmup_epochs = 5
    config.optimizer.warmup_init_lr = 1e-6
    config.optimizer.min_lr = 1e-4
    config.optimizer.cooldown_epochs = 10  # at min_lr, after train.epochs

    config.train = ConfigDict()
    config.train.seed = 0
    config.train.init_from = ""  # workdir of another run whose weights are taken where they fit; "": random start
    config.train.epochs = 100  # without the cooldown
    config.train.min_epoch_steps = 1  # a set that is smaller is gone through several times in what is called an epoch
    config.train.batch_size = 64  # images, over all devices
    # How many devices share a batch with the whole state on each ("data"), share a batch and the state ("fsdp"), and
    # share the matrix products of each transformer block ("tensor"); one of them may be -1: what is left.
    config.train.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    config.train.accumulate_steps = 1  # equal parts that a batch is computed in, one after the other, to save memory
    config.train.compute_dtype = "float32"  # "bfloat16" on GPU and TPU; parameters and sums stay float32
    config.train.remat = False  # True: blocks are computed twice instead of kept in memory (not of encoder="ring")
    config.train.ema_decay = 0.0  # of the average of the parameters that is validated and embeds; 0: no average
    config.train.ema_decay_grows = False  # True: to 1 at the end of the run, as half a cosine
    config.train.stop_at_collapse = False  # True: a run whose embeddings have become all alike ends, with one line
    config.train.log_every_steps = 100
    config.train.eval_every_epochs = 1
    config.train.checkpoint_every_steps = 1000
    config.train.early_stopping_patience_epochs = 10  # epochs without a better validation loss; 0: never
    config.train.profile_steps = 0  # steps written as a trace to profile/, for TensorBoard and Perfetto; 0: none
    config.train.num_reconstructions = 4  # images in each picture
    config.train.wandb = "disabled"  # "offline", "online"

    config.eval = ConfigDict()
    config.eval.batch_size = 64  # images, over all devices
    config.eval.image_size = (0, 0)  # pixels, the middle part that is embedded; (0, 0): all of it
    config.eval.label = "label"  # column that is predicted
    config.eval.group = "plate"  # column that is left out in turn
    # "embedding": the latent vector, or how often each code occurs. Of what the encoder says before the bottleneck:
    # "features", the mean over positions; "statistics", mean, maximum and standard deviation; "layers", the same of
    # several layers.
    config.eval.readout = "embedding"
    config.eval.components = 0  # principal components that stand for the readout; 0: itself
    config.eval.append = ()  # numbers known of an example that are put beside its embedding, e.g. ("area_px",)
    config.eval.probe_control = "scrambled"  # label of the negative controls; "": none
    config.eval.folds = 5
    config.eval.trees = 100  # of the random forest
    config.eval.knn_k = 1
    config.eval.bootstrap = 1000  # resamples for the intervals
    config.eval.umap = True
    config.eval.classical_baseline = True  # intensity, texture and region properties; 10 ms an image
    # How many cells an image shows, a baseline: objects of a channel, by threshold and watershed, or a column of the
    # set that has counted them; "": neither.
    config.eval.cell_count_channel = ""
    config.eval.cell_count_column = ""
    # Images that all sets of features are compared on; of a larger set so many are drawn, and the embeddings' profiles
    # alone are of all.
    config.eval.most_images = 10_000
    # Images, or treatments, that are asked for their neighbors; of more so many are drawn.
    config.eval.most_queries = 5000
    # Folder of Hugging Face's ResNet, ViT, ViTMAE or DINOv2 (config.json, preprocessor_config.json, model.safetensors)
    # that is scored beside ours as it is, each channel as a gray image; "": none. Read when data.kind = "images".
    config.eval.published = ""
    config.eval.published_channels = "concatenate"  # side by side, or "average"; read with eval.published, as the next
    config.eval.published_components = 0  # principal components that stand for them in each fold; 0: themselves
    config.eval.max_report_points = 2000  # images in the interactive plot
    # Objects of the table of invariances (read when data.kind = "shapes"), and the side, px, that they are shrunk to
    # where they are larger before they are drawn as masks; 0 objects: no table.
    config.eval.invariance_objects = 200
    config.eval.invariance_side_px = 128
    config.eval.profile = ConfigDict()  # images become wells, wells treatments; read when treatment names any column
    config.eval.profile.treatment = ()  # columns that name a treatment, e.g. ("compound", "dose"); (): no profiles
    config.eval.profile.mechanism = ""  # column of what treatments share, a gene or a mode of action; "": none
    config.eval.profile.compound = ""  # column in which two treatments of one mechanism differ; "": treatment's columns
    config.eval.profile.concentration = ""  # column of numbers; "": none
    config.eval.profile.batch = ("plate",)  # columns that name a batch
    config.eval.profile.replicates_differ_in = ()  # columns in which two replicates differ, e.g. ("plate",); (): none
    config.eval.profile.well_statistic = "mean"  # or "median", of the images of a well
    config.eval.profile.treatment_statistic = "median"  # or "mean", of the wells of a treatment
    # What is done to wells, in this order, none twice: "normalize", "select", "components", "sphere", "tvn". Controls
    # are those of probe_control.
    config.eval.profile.steps = ("normalize", "select")
    config.eval.profile.normalize = ConfigDict()
    config.eval.profile.normalize.method = "standardize"  # mean and sd; "mad_robustize": median and absolute deviation
    config.eval.profile.normalize.scope = ("plate",)  # columns within which it is done; (): the whole set
    config.eval.profile.normalize.rows = "controls"  # center and scale are theirs; "all": those of all wells
    config.eval.profile.components = 32  # principal components of all wells; read when "components" is a step
    config.eval.profile.select = ConfigDict()
    config.eval.profile.select.min_variance = 0.0  # features that vary no more go
    config.eval.profile.select.max_correlation = 0.9  # of two features above it one goes
    config.eval.profile.select.max_absolute = 1e6  # features with a larger value go
    config.eval.profile.sphere = ConfigDict()
    config.eval.profile.sphere.rotation = "ZCA"  # features stay what they were; "PCA": become components
    config.eval.profile.sphere.epsilon = 1e-6  # singular values of controls are raised by it
    config.eval.profile.sphere.few_controls = "fill"  # directions without controls take the smallest; or "raise"
    config.eval.profile.tvn_regularization = 0.5  # variances; EFAAR's; read when "tvn" is a step
    config.eval.profile.null_size = 1000  # random orders that scores are held against
    config.eval.seed = 0
    return config


def _simulated(config: ConfigDict) -> None:
    """2 CPU cores, about 5 minutes. A short stack: per second of training it learns most here."""
    config.data.name = "simulated"
    config.data.crop_size = (32, 32)
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


def _shapes(config: ConfigDict) -> None:
    """What `experiments/shapes` found to serve digits and cells alike."""
    config.data.kind = "shapes"
    config.data.crop_size = (64, 64)
    config.data.split_by = "image"
    config.data.read_threads = 2
    config.model.name = "vae"
    config.model.encoder = "ring"
    config.model.decoder = "points"
    config.model.latent_dim = 256
    config.model.bottleneck = "pooled"
    config.model.quantizer.num_codes = 64
    config.model.quantizer.code_dim = 8
    config.model.quantizer.num_groups = 32
    # Contrast is the teacher, what is reconstructed keeps the embedding honest: 0.005 nats of 64 x 64 distances are
    # about 10 of the mean squared error.
    config.objective.reconstruction = 0.005
    config.objective.beta = 0.001
    config.objective.matrix.reindexed = True
    config.objective.contrastive.weight = 1.0
    config.objective.contrastive.form = "views"
    config.optimizer.name = "adamw"
    config.optimizer.lr = 2e-3
    config.optimizer.decay_biases_and_norms = False
    config.optimizer.warmup_epochs = 1
    config.optimizer.min_lr = 1e-5
    config.optimizer.cooldown_epochs = 0
    config.train.epochs = 10
    config.train.min_epoch_steps = 40
    config.train.batch_size = 256
    config.train.log_every_steps = 20
    config.train.early_stopping_patience_epochs = 0
    config.eval.batch_size = 256
    config.eval.readout = "features"
    config.eval.probe_control = ""
    config.eval.bootstrap = 500


def _tiny(config: ConfigDict) -> None:
    config.model.residual_stack.num_hiddens = 8
    config.model.residual_stack.num_residual_hiddens = 8
    config.model.latent_dim = 16
    config.train.batch_size = 8
    config.optimizer.warmup_epochs = 1
    config.optimizer.cooldown_epochs = 1
    config.train.epochs = 2
    config.train.min_epoch_steps = 1
    config.train.log_every_steps = 2
    config.train.eval_every_epochs = 1
    config.train.checkpoint_every_steps = 3
    config.eval.batch_size = 16
    config.eval.trees = 10
    config.eval.bootstrap = 20
