"""Break the library on purpose, one place at a time, and check that a test notices: python tests/mutants.py [NAME ...].

Each mutant is a change of one place in a copy of the package, and the test that must fail then. No mutant needs data
that has to be downloaded.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A deliberate fault."""

    file: str  # below d2ldrop/
    old: str
    new: str
    test: str  # below tests/
    backend: str = "numpy"


MUTANTS = {
    "differences are not taken seed by seed": Mutant(
        "studies/tables.py",
        "estimate(a - b for a, b in zip(values, baseline, strict=True))",
        "estimate(np.sort([*values]) - np.sort([*baseline]))",
        "test_studies.py::test_estimates_are_students",
    ),
    "the search of exercise 7 looks at the test": Mutant(
        "studies/exercise_7.py",
        'return {"test_acc": trainer.evaluate(data=load(data))["val_acc"]}',
        'return {"test_acc": trainer.history[-1]["val_acc"]}',
        "test_exercises.py",
        "torch",
    ),
    "a resumed study begins anew": Mutant(
        "studies/engine.py",
        "found = [store.find(*key) for key in keys]",
        "found = [None for key in keys]",
        "test_studies.py::test_resume_repeats_nothing",
    ),
    "estimators forget the optimiser's memory": Mutant(
        "estimators.py",
        "_Continued(memory)",
        "_Continued(None)",
        "test_estimators.py::test_partial_fit_goes_on",
    ),
    "estimators ignore the weights of classes": Mutant(
        "estimators.py",
        "class_weights=weights)",
        "class_weights=None)",
        "test_estimators.py::test_class_weights_change_how_often_a_rare_class_is_predicted",
    ),
    "estimators take bytes for pixels": Mutant(
        "estimators.py",
        "dtype=np.float32, **options",
        "dtype=None, **options",
        "test_estimators.py::test_integers_are_numbers_not_pixels",
    ),
    "estimators have a seed of their own": Mutant(
        "estimators.py",
        "seed = self._random_state.randint(2**31 - 1)",
        "seed = 0",
        "test_estimators.py::test_the_same_random_state_gives_the_same",
    ),
    "whole floats are targets": Mutant(
        "data/modules.py",
        '(y.dtype.kind == "f" and not classes)',
        'y.dtype.kind == "f"',
        "test_regression.py::test_targets_and_classes_are_told_apart",
    ),
    "targets of shape (N,)": Mutant(
        "data/modules.py",
        "y if y.ndim == 2 else y[:, None], np.float32)",
        "y, np.float32)",
        "test_regression.py::test_targets_and_classes_are_told_apart",
    ),
    "targets set aside in order": Mutant(
        "data/modules.py",
        "order, cut = validation_last(strata, shuffle)",
        "order, cut = np.arange(len(y))",
        "test_regression.py::test_a_shuffled_fifth_is_set_aside",
    ),
    "a classifier is given targets": Mutant(
        "training/checks.py",
        'if targets and not is_overridden(model, "loss"):',
        "if False:",
        "test_regression.py::test_classifiers_and_regressors_refuse_what_is_for_the_other",
    ),
    "columns standardised by all rows": Mutant(
        "data/csv_data.py",
        "numbers[name] = Numbers.of(values[train], name)",
        "numbers[name] = Numbers.of(values, name)",
        "test_tables.py::test_columns_become_what_scikit_learn_makes_of_them",
    ),
    "missing numbers replaced by 0": Mutant(
        "data/tables.py",
        "(np.where(np.isnan(values), self.median, values) - self.mean)",
        "(np.where(np.isnan(values), 0, values) - self.mean)",
        "test_tables.py::test_missing_values_are_replaced_and_noted",
    ),
    "predictions without the mean of the target": Mutant(
        "data/tables.py",
        "outputs[:, 0] * self.scale.deviation + self.scale.mean",
        "outputs[:, 0] * self.scale.deviation",
        "test_tables.py::test_targets_of_a_regression_are_standardised_and_put_back",
    ),
    "integers of loaders stay": Mutant(
        "data/loaders.py",
        "yield (*floats, as_labels(labels, self.backend))",
        "yield (*floats, labels)",
        "test_loaders.py::test_types_of_numbers_are_those_that_models_take",
    ),
    "batches not counted in the first epoch": Mutant(
        "training/trainer.py",
        "            self._count_batches(len(steps))\n",
        "",
        "test_loaders.py::test_a_loader_without_a_length_is_counted_in_the_first_epoch",
    ),
    "iterators as data": Mutant(
        "data/loaders.py",
        "if any(isinstance(loader, Iterator) for loader in loaders):",
        "if False:",
        "test_loaders.py::test_what_can_be_gone_through_once_is_refused",
    ),
    "lines of an earlier training stay": Mutant(
        "training/history.py",
        "if trainer.history or not is_stream(self.path):",
        "if False:",
        "test_history.py::test_json_lines_are_there_after_each_epoch",
    ),
    "epochs twice in TensorBoard": Mutant(
        "training/history.py",
        "        self._write(session_log=SessionLog(status=SessionLog.START), step=len(trainer.history) + 1)\n",
        "",
        "test_history.py::test_tensorboard_shows_each_epoch_once",
    ),
    "no shuffling": Mutant(
        "training/trainer.py",
        "self._order().permutation(len(self._train_data[-1]))",
        "np.arange(len(self._train_data[-1]))",
        "test_trainer.py::test_fit_shuffles_samples_anew_in_each_epoch",
    ),
    "the same permutation in every epoch": Mutant(
        "training/trainer.py",
        "self._order().permutation(len(self._train_data[-1]))",
        "np.random.default_rng(0).permutation(len(self._train_data[-1]))",
        "test_trainer.py::test_fit_shuffles_samples_anew_in_each_epoch",
    ),
    "loaders shuffle batches, not samples": Mutant(
        "data/modules.py",
        "order = rng.permutation(count)",
        "pass",
        "test_trainer.py::test_samples_are_shuffled_not_batches",
    ),
    "clipping per layer (NumPy)": Mutant(
        "numpy/backend.py",
        "        norm = np.sqrt(sum(np.vdot(grad, grad) for grad in grads))\n        if norm > grad_clip_val:\n"
        "            for grad in grads:\n                grad *= grad_clip_val / norm\n",
        "        for grad in grads:\n            norm = np.sqrt(np.vdot(grad, grad))\n"
        "            if norm > grad_clip_val:\n                grad *= grad_clip_val / norm\n",
        "test_trainer.py::test_gradients_are_clipped_to_a_common_norm",
    ),
    "dropout's seed ignored by the trainer": Mutant(
        "training/trainer.py",
        "self.backend.reseed(self.state, integer(stream))",
        "pass",
        "test_trainer.py::test_dropout_has_a_stream_of_its_own",
    ),
    "dropout's seed ignored by a backend": Mutant(
        "torch/backend.py",
        "        if seed is not None:\n            torch.manual_seed(seed)\n        return State(",
        "        return State(",
        "test_trainer.py::test_the_seed_of_a_state_decides_on_its_masks",
        "torch",
    ),
    "points of the board not weighted by samples": Mutant(
        "training/metrics.py",
        "self._recent[prefix + key] = _mean(numbers[key], sizes)",
        "self._recent[prefix + key] = float(np.mean(numbers[key]))",
        "test_trainer.py::test_points_of_the_board_weigh_samples",
    ),
    "means not weighted by samples": Mutant(
        "training/metrics.py",
        "float(np.average(values, weights=sizes))",
        "float(np.average(values))",
        "test_evaluation.py::test_metrics_weigh_samples",
    ),
    "two class names swapped": Mutant(
        "data/fashion_mnist.py",
        '"sandal", "shirt"',
        '"shirt", "sandal"',
        "test_data.py::test_fashion_mnist_class_names_are_in_the_order_of_the_labels",
    ),
    "EarlyStopping with the sign turned": Mutant(
        "training/callbacks.py",
        'sign = -1 if monitor.endswith("acc")',
        'sign = -1 if not monitor.endswith("acc")',
        "test_callbacks.py::test_early_stopping_waits_for_an_improvement",
    ),
    "min_delta ignored": Mutant(
        "training/callbacks.py",
        "value < best - min_delta",
        "value < best",
        "test_callbacks.py::test_early_stopping_counts_only_changes_above_min_delta",
    ),
    "digits for validation that are trained on": Mutant(
        "data/digits.py",
        "Split(X[cut:], y[cut:])",
        "Split(X[:360], y[:360])",
        "test_data.py::test_no_sample_is_both_for_training_and_for_validation",
    ),
    "arrays for validation that are trained on": Mutant(
        "data/modules.py",
        "order[:cut], order[cut:]",
        "order[:cut], order[:2]",
        "test_data.py::test_no_sample_is_both_for_training_and_for_validation",
    ),
    "evaluate_accuracy as a mean of batch means": Mutant(
        "functional.py",
        "        correct.append(backend.num_correct(backend.outputs(net, X), y))\n        samples += len(y)\n",
        "        correct.append(backend.num_correct(backend.outputs(net, X), y) / len(y))\n        samples += 1\n",
        "test_functional.py::test_evaluation_weighs_samples_not_batches",
    ),
    "titles of predict_ch3 swapped": Mutant(
        "functional.py",
        "zip(get_fashion_mnist_labels(y[:n]), get_fashion_mnist_labels(guessed[:n]), strict=True)",
        "zip(get_fashion_mnist_labels(guessed[:n]), get_fashion_mnist_labels(y[:n]), strict=True)",
        "test_functional.py::test_predictions_have_the_true_label_above_the_predicted_one",
    ),
    "colours of predict --plot swapped": Mutant(
        "cli/commands.py",
        'set_color("black" if right else "red")',
        'set_color("red" if right else "black")',
        "test_cli.py::test_predictions_are_drawn_below_their_labels_and_wrong_ones_are_red",
    ),
    "compare ignores --shared-masks": Mutant(
        "cli/commands.py",
        "args.shared_masks, **hparams",
        "False, **hparams",
        "test_cli.py::test_compare_shares_masks_on_request",
    ),
    "compare ignores --lr": Mutant(
        "cli/commands.py",
        '"lr": LEARNING_RATES[args.optimizer] if args.lr is None else args.lr,',
        '"lr": LEARNING_RATES[args.optimizer],',
        "test_cli.py::test_compare_takes_the_options_of_training",
    ),
    "compare ignores --dropout-2": Mutant(
        "cli/commands.py",
        '"dropout_1": args.dropout_1, "dropout_2": args.dropout_2, **optimizer(args)',
        '"dropout_1": args.dropout_1, **optimizer(args)',
        "test_cli.py::test_compare_takes_the_options_of_training",
    ),
    "train ignores --dropout-2": Mutant(
        "cli/commands.py",
        "dropout_2=args.dropout_2",
        "dropout_2=0.5",
        "test_cli.py::test_train_takes_its_options",
    ),
    "samples_per_second doubled": Mutant(
        "training/trainer.py",
        '"samples_per_second": samples /',
        '"samples_per_second": 2 * samples /',
        "test_trainer.py::test_throughput_counts_samples_per_second_of_training",
    ),
    "uint8 not scaled in predict": Mutant(
        "numpy/backend.py",
        "return model(as_floats(X))",
        "return model(X)",
        "test_evaluation.py::test_predict_scales_pixels",
    ),
    "batch statistics never updated (JAX)": Mutant(
        "jax/steps.py",
        '.get("batch_stats", state.batch_stats)',
        '.get("nothing", state.batch_stats)',
        "test_readers.py::test_batch_statistics_are_updated_in_training",
        "jax",
    ),
    "8 rounds of Threefry": Mutant(
        "jax/masks.py",
        "for i in range(20):",
        "for i in range(8):",
        "test_dropout.py::test_threefry_gives_known_answers",
        "jax",
    ),
    "tf.Variable of a reader not trained": Mutant(
        "tf/keras_model.py",
        "if isinstance(value, tf.Variable):",
        "if False:",
        "test_readers.py::test_variables_of_a_reader_are_trained_and_saved",
        "tf",
    ),
    "TensorFlow's trace seed removed": Mutant(
        "tf/backend.py",
        "tf.compat.v1.set_random_seed(self.seed + rows.shape[1])",
        "pass",
        "test_readers.py::test_compiled_functions_for_other_batch_sizes_draw_other_numbers",
        "tf",
    ),
    "evaluate trains on what it was given": Mutant(
        "training/evaluation.py",
        "view = object.__new__(type(self))",
        "view = self",
        "test_evaluation.py::test_evaluation_in_a_callback_changes_nothing_of_a_training",
    ),
    "layers in containers not found (NumPy)": Mutant(
        "numpy/layers.py",
        "elif isinstance(value, (list, tuple, dict)):",
        "elif isinstance(value, tuple):",
        "test_readers.py::test_layers_in_containers_and_layers_with_parameters_of_their_own_by_hand",
    ),
    "masks drop with probability 1 - p": Mutant(
        "randomness.py",
        "return Odds(threshold * 2**bits // LANES, scale, bits)",
        "return Odds((LANES - threshold) * 2**bits // LANES, scale, bits)",
        "test_dropout.py::test_each_element_is_zero_or_scaled",
    ),
    "a constant seed for dropout": Mutant(
        "training/trainer.py",
        "self.backend.reseed(self.state, integer(stream))",
        "self.backend.reseed(self.state, 0)",
        "test_trainer.py::test_the_seed_decides_on_the_masks",
    ),
    "a constant seed for the order": Mutant(
        "training/trainer.py",
        "np.random.default_rng(of_epoch(self._streams.order, self.epoch))",
        "np.random.default_rng(self.epoch)",
        "test_trainer.py::test_the_seed_decides_on_the_order_of_samples",
    ),
    "loaders do not follow the seed": Mutant(
        "training/trainer.py",
        "self.train_dataloader.rng = self._order()",
        "pass",
        "test_trainer.py::test_the_seed_decides_on_the_order_of_samples",
    ),
    "a constant seed for the initial weights": Mutant(
        "training/trainer.py",
        "partial(initial_weights, stream=self._streams.weights)",
        "partial(initial_weights, stream=np.random.SeedSequence(0))",
        "test_trainer.py::test_the_seed_decides_on_the_initial_weights",
    ),
    "Keras' own dropout does not follow the seed": Mutant(
        "tf/backend.py",
        "        reseed(state.model, lambda: int(rng.integers(2**31)))\n",
        "",
        "test_trainer.py::test_the_seed_decides_on_the_masks",
        "tf",
    ),
    "Fashion-MNIST validates on its training files": Mutant(
        "data/fashion_mnist.py",
        'for part in ("train", "t10k")',
        'for part in ("train", "train")',
        "test_data.py::test_fashion_mnist_validates_on_the_test_files",
    ),
    "EarlyStopping compares with the last value, not the best": Mutant(
        "training/callbacks.py",
        "else (best, waited + 1)",
        "else (value, waited + 1)",
        "test_callbacks.py::test_early_stopping_waits_for_an_improvement",
    ),
    "a threshold that is off by one (JAX)": Mutant(
        "jax/masks.py",
        "return [lane >= threshold for",
        "return [lane > threshold for",
        "test_dropout.py::test_masks_of_jax_agree_with_a_comparison_of_the_same_bits",
        "jax",
    ),
    "both halves of a mask the same (JAX)": Mutant(
        "jax/masks.py",
        "np.array([0, half], np.uint32)",
        "np.array([0, 0], np.uint32)",
        "test_dropout.py::test_masks_are_independent",
        "jax",
    ),
    "weights set in a callback ignored by the next epoch (JAX)": Mutant(
        "jax/backend.py",
        "        state = state.replace(**model.learned)\n        whole",
        "        whole",
        "test_callbacks.py::test_training_continues_from_weights_set_in_a_callback",
        "jax",
    ),
    "labels without an output": Mutant(
        "training/checks.py",
        "y.max() >= outputs:",
        "False:",
        "test_validation.py::test_labels_without_an_output_are_refused",
    ),
    "nan among the samples": Mutant(
        "data/modules.py",
        "if not finite.all():",
        "if False:",
        "test_validation.py::test_samples_that_are_not_finite_are_refused",
    ),
    "validation without regard to classes": Mutant(
        "data/modules.py",
        'return by_class[np.argsort(place, kind="stable")]',
        "return shuffled",
        "test_validation.py::test_validation_has_its_part_of_each_class",
    ),
    "pixels of other integer types are not scaled": Mutant(
        "data/modules.py",
        "return X.astype(np.uint8)",
        "return X.astype(np.float32)",
        "test_validation.py::test_the_same_pixels_in_other_forms_are_the_same",
    ),
    "weights that are nan": Mutant(
        "training/trainer.py",
        "if not np.isfinite(value).all()), None)",
        "if False), None)",
        "test_divergence.py::test_weights_that_are_not_finite_are_found_where_the_loss_is",
        "mxnet",
    ),
    "weights from the middle of an epoch after an interrupt": Mutant(
        "training/trainer.py",
        "self.backend.assign(self.model, self._kept)",
        "pass",
        "test_divergence.py::test_after_an_interrupt_the_weights_are_those_of_the_last_row",
    ),
    "the optimiser's memory is not resumed": Mutant(
        "training/checkpoints.py",
        'trainer.state = trainer.backend.set_optimizer_state(trainer.state, part_of(arrays, "optimizer"))',
        "pass",
        "test_checkpoints.py::test_resumed_training_is_bit_identical",
    ),
    "AdamW's decay is a part of the gradient": Mutant(
        "numpy/optimizers.py",
        "value *= 1 - self.lr * self.weight_decay\n        return grad",
        "return super().decayed(value, grad)",
        "test_optimizers.py::test_all_backends_take_the_same_steps",
        "mxnet",
    ),
    "a schedule is not followed": Mutant(
        "training/callbacks.py",
        "trainer.state = trainer.backend.set_lr(trainer.state, self.lr)",
        "pass",
        "test_optimizers.py::test_a_schedule_sets_the_rate_of_each_epoch_without_compiling_again",
    ),
    "activations are looked at without dropout": Mutant(
        "numpy/backend.py",
        "            self.sample(model, X)\n        return calls",
        "            self.predict(model, X)\n        return calls",
        "test_activations.py::test_activations_are_those_that_numpy_computes_from_the_weights",
    ),
    "randomness is not resumed": Mutant(
        "training/checkpoints.py",
        'trainer.entropy, (trainer.train_batch_idx, trainer.val_batch_idx) = saved["entropy"], saved["batches"]',
        "pass",
        "test_checkpoints.py::test_resumed_training_without_a_seed_is_bit_identical",
    ),
    "a damaged checkpoint is used": Mutant(
        "training/checkpoints.py",
        'about.get("checksum") != checksum_of(body, arrays)',
        "False",
        "test_checkpoints.py::test_a_damaged_checkpoint_is_named_and_passed_over",
    ),
    "a checkpoint of another training is used": Mutant(
        "training/checkpoints.py",
        "if differing:",
        "if False:",
        "test_checkpoints.py::test_a_checkpoint_of_another_training_is_refused_with_the_difference",
    ),
    "all checkpoints are kept": Mutant(
        "training/checkpoints.py",
        "old.unlink()",
        "pass",
        "test_checkpoints.py::test_which_checkpoints_are_kept",
    ),
    "the best weights are not given back": Mutant(
        "training/callbacks.py",
        "if self._best is not None:",
        "if False:",
        "test_checkpoints.py::test_the_best_weights_are_kept_and_given_back",
    ),
    "pickles hold samples": Mutant(
        "numpy/layers.py",
        'transient = ("X", "dW", "db")',
        "transient = ()",
        "test_copies.py::test_pickles_hold_no_data",
    ),
    "signals are not handled": Mutant(
        "cli/running.py",
        'for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]',
        "for name in ()]",
        "test_cli.py::test_a_signal_ends_training_and_what_was_trained_is_written",
    ),
    "an output that fails keeps the others from being written": Mutant(
        "cli/commands.py",
        "            except Exception as error:\n                failures",
        "            except ZeroDivisionError as error:\n                failures",
        "test_cli.py::test_each_output_is_written_whether_or_not_the_others_can_be",
    ),
    "output that cannot be written ends training": Mutant(
        "cli/running.py",
        "except OSError as error:",
        "except ZeroDivisionError as error:",
        "test_cli.py::test_output_that_cannot_be_written_loses_nothing",
    ),
    "Gaussian dropout with the deviation p / (1 - p)": Mutant(
        "noise.py",
        "math.sqrt(p / (1 - p))",
        "p / (1 - p)",
        "test_noise.py::test_gaussian_dropout_has_the_mean_and_variance_of_dropout",
    ),
    "alpha dropout that moves the mean": Mutant(
        "noise.py",
        "b = -a * p * ALPHA",
        "b = -a * q * ALPHA",
        "test_noise.py::test_alpha_dropout_keeps_mean_0_and_variance_1",
    ),
    "pixels of a channel dropped one by one": Mutant(
        "noise.py",
        "return dropout_layer(X, dropout, axes=axes, key=key)",
        "return dropout_layer(X, dropout, key=key)",
        "test_noise.py::test_channels_are_dropped_whole",
    ),
    "DropConnect that drops inputs": Mutant(
        "noise.py",
        "return X @ dropout_layer(W, dropout, key=key)",
        "return dropout_layer(X, dropout, key=key) @ W",
        "test_noise.py::test_dropconnect_has_the_mean_and_variance_of_its_formula",
    ),
    "DropConnect with one mask where each sample has its own": Mutant(
        "noise.py",
        "if not per_sample:",
        "if True:",
        "test_noise.py::test_dropconnect_has_the_mean_and_variance_of_its_formula",
    ),
    "input noise of the variance sigma": Mutant(
        "noise.py",
        "X + deviation * found",
        "X + math.sqrt(deviation) * found",
        "test_noise.py::test_input_noise_has_the_given_deviation",
    ),
    "axes are ignored": Mutant(
        "randomness.py",
        "1 if k in shared or k - n in shared else size",
        "size",
        "test_noise.py::test_masks_are_shared_along_axes",
    ),
    "noise that is not shared (PyTorch)": Mutant(
        "torch/masks.py",
        "return None if torch.compiler.is_compiling() else shared_generator()",
        "return None",
        "test_noise.py::test_shared_noise_is_the_same_everywhere",
        "torch",
    ),
    "a layer that drops in evaluation (PyTorch)": Mutant(
        "torch/layers.py",
        "if not self.training:",
        "if False:",
        "test_transforms_torch.py::test_the_layer_drops_in_training_alone",
        "torch",
    ),
    "models that go on dropping after a first call in training (Keras)": Mutant(
        "tf/keras_model.py",
        "                _building_again(nets=nets)\n",
        "                pass\n",
        "test_transforms_tf.py::test_models_whose_first_call_trains_do_not_go_on_dropping",
        "tf",
    ),
    "no key from the stream params (JAX)": Mutant(
        "jax/keys.py",
        'if has(stream) or has("params") else None',
        "if has(stream) else None",
        "test_transforms_jax.py::test_models_with_one_key",
        "jax",
    ),
    "foreign arrays are taken (MXNet)": Mutant(
        "mxnet/masks.py",
        '        raise not_an_array(X, "mxnet")',
        "        X = np.array(X)",
        "test_noise.py::test_arrays_of_other_frameworks_are_refused_by_an_adapter",
        "mxnet",
    ),
    "predictions under masks without masks (NumPy)": Mutant(
        "numpy/backend.py",
        "        model.train()\n        try:",
        "        model.train(False)\n        try:",
        "test_uncertainty.py::test_means_over_masks_are_those_over_all_masks",
    ),
    "predictions under masks with the statistics of the batch (PyTorch)": Mutant(
        "torch/backend.py",
        "module.training = module is model or not any(True for _ in module.buffers(recurse=False))",
        "module.training = True",
        "test_uncertainty.py::test_batch_normalisation_is_as_in_evaluation",
        "torch",
    ),
    "predictions under masks shift those of a training (Keras)": Mutant(
        "tf/keras_model.py",
        "            source.state.assign(state)",
        "            pass",
        "test_uncertainty.py::test_a_training_goes_on_as_if_nothing_had_been_predicted",
        "tf",
    ),
    "predictions under masks seed MXNet's own generator": Mutant(
        "mxnet/arrays.py",
        "    if not _own_unseeded.get():\n        mx.random.seed(seed)",
        "    mx.random.seed(seed)",
        "test_uncertainty.py::test_a_training_goes_on_as_if_nothing_had_been_predicted",
        "mxnet",
    ),
    "predictions under masks leave the generator elsewhere": Mutant(
        "uncertainty.py",
        "with sharing_masks(None), backend.isolated():",
        "with sharing_masks(None):",
        "test_uncertainty.py::test_what_is_drawn_later_does_not_depend_on_it",
    ),
    "the calibration error does not weigh the bins": Mutant(
        "calibration.py",
        ", weights=counts[filled]",
        "",
        "test_calibration.py::test_the_calibration_error_against_a_loop",
    ),
    "what is certain is rejected first": Mutant(
        "calibration.py",
        "np.unique(uncertainty, return_inverse=True)",
        "np.unique(-uncertainty, return_inverse=True)",
        "test_calibration.py::test_the_rejection_curve_against_a_loop",
    ),
}


def survives(mutant: Mutant) -> bool:
    """Return True if the test passes although the mutant is in place."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("d2ldrop", "tests"):
            shutil.copytree(ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "conftest.py"):
            shutil.copy(ROOT / part, folder)
        path = Path(folder, "d2ldrop", mutant.file)
        source = path.read_text(encoding="utf-8")
        if mutant.old not in source:
            raise SystemExit(f"{mutant.file} has no {mutant.old!r} any more")
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{mutant.test}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder, "D2LDROP_BACKENDS": mutant.backend},
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(done.stdout)
        return done.returncode == 0


def main(names: list[str]) -> int:
    """Try the mutants of some names, or all of them; return 1 if one survives."""
    alive = []
    for name in names or MUTANTS:
        noticed = not survives(MUTANTS[name])
        print(f"{'noticed' if noticed else 'NOT NOTICED'}: {name}, by {MUTANTS[name].test}", flush=True)
        alive += [] if noticed else [name]
    print(f"{len(names or MUTANTS) - len(alive)} noticed, {len(alive)} not noticed: {', '.join(alive) or 'none'}")
    return bool(alive)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
