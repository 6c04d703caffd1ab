"""A run from its settings to its last file, phase by phase."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aozora.config.checks import check_config, ticket_pool
from aozora.config.choices.weightings import NoWeighting
from aozora.config.codec import encode_config
from aozora.config.schema import TrainConfig
from aozora.config.ticket_segments import SegmentedPool
from aozora.data.batch_plan import BatchPlan
from aozora.data.prefetch import Prefetcher
from aozora.diffusion.losses import per_sample_loss
from aozora.diffusion.timesteps import validation_grid
from aozora.diffusion.weightings import sample_weights
from aozora.errors import AozoraError, CheckpointError, ConfigError
from aozora.events import (
    Event,
    EventSink,
    ItemSkipped,
    Progressed,
    RunFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    StopReason,
    Warned,
)
from aozora.model.attention import use_attention
from aozora.model.loading import load_unet
from aozora.model.opening import open_model
from aozora.model.source import ModelSource
from aozora.model.targeting import TargetSelection, select_targets
from aozora.registry import kind_of
from aozora.runtime import remove_stale_partials
from aozora.training.batches import BatchPreparer, Dropout, validation_batch
from aozora.training.checkpointing import describe_versions, free_name, last_state, read_state
from aozora.training.control import RunControl
from aozora.training.device import (
    DTYPES,
    choose_device,
    device_settings,
    precision_note,
    release_memory,
)
from aozora.training.gradients import LossScaler
from aozora.training.inputs import (
    Encoders,
    Pictures,
    StoppedEarly,
    find_pictures,
    require_encoders,
    summarise,
)
from aozora.training.objective_choice import choose_objective
from aozora.training.optimizer_factory import build_optimizer
from aozora.training.resume import Difference, Identity, compare_settings, require_same
from aozora.training.run_record import RunRecord
from aozora.training.saving import SaveCadence, Saver, space_note
from aozora.training.step import StepRecipe
from aozora.training.trainer import LoopSettings, Position, Trainer
from aozora.training.validation import Validator
from optimizers.protocol import MasterOptimizer

log = logging.getLogger(__name__)

State = Mapping[str, Any]


def train(
    config: TrainConfig,
    on_event: EventSink,
    control: RunControl,
    *,
    resume: Path | Literal["last"] | None = None,
) -> None:
    """Run ``config`` to its end, or until ``control`` asks to stop.

    Args:
        config: All settings.
        on_event: Receives what happens, from any thread, one event at a time.
        control: Requests of whoever started the run.
        resume: A state file to go on from, or ``last`` for the newest of this name.

    Raises:
        AozoraError: when the run is refused or cannot go on; `RunFailed` was reported before.
    """
    reports: list[RunFailed] = []

    def receive(event: Event) -> None:
        if isinstance(event, RunFailed):
            reports.append(event)
        on_event(event)

    try:
        require_valid(config)
        device = choose_device(config.training.device)
        state_path, state = _find_state(config, resume)
        with (
            device_settings(device, deterministic=config.training.deterministic),
            open_base(config) as source,
        ):
            _Run(config, receive, control, device, source, state_path, state).run()
    except AozoraError as error:
        if not reports:
            on_event(RunFailed(message=error.message, hint=error.hint))
        raise


def cache(config: TrainConfig, on_event: EventSink, control: RunControl) -> None:
    """Fill the caches for ``config`` without training.

    Raises:
        AozoraError: when something is missing or cannot be read.
    """
    require_valid(config)
    device = choose_device(config.training.device)
    with device_settings(device, deterministic=False), open_base(config) as source:
        record = RunRecord(
            config, name=config.output.name, run_id="", device=device, on_event=on_event
        )
        with record:
            try:
                pictures = _scan(config, record, control)
                _encode(config, record, control, device, source, pictures)
            except StoppedEarly:
                record.emit(Warned(text="stopped; what was encoded is kept"))


def require_valid(config: TrainConfig) -> None:
    """Raise ConfigError if the settings have problems that no file needs to be read for."""
    problems = check_config(config)
    if problems:
        raise ConfigError(problems)


def open_base(config: TrainConfig) -> ModelSource:
    """Open the model that ``config`` names, with all its parts.

    Raises:
        ModelFileError: if it cannot be used.
    """
    model = config.model
    source = open_model(
        Path(model.base),
        Path(model.vae) if model.vae else None,
        Path(model.text_encoders) if model.text_encoders else None,
    )
    require_encoders(source)
    return source


def targets_of(config: TrainConfig, source: ModelSource) -> TargetSelection:
    """Return the parameters that ``config`` trains.

    Raises:
        ConfigError: if a pattern or block matches nothing.
    """
    targets = config.targets
    return select_targets(
        source.unet_shapes(),
        layers=targets.layers,
        blocks=targets.blocks,
        include=targets.include,
        exclude=targets.exclude,
    )


def total_steps(config: TrainConfig, plan: BatchPlan) -> int:
    """Return the length of the run in optimizer steps."""
    training = config.training
    if not training.epochs:
        return training.steps
    micro_steps = training.epochs * plan.batches_per_epoch
    return max(1, math.ceil(micro_steps / training.accumulation_steps))


def _find_state(
    config: TrainConfig, resume: Path | Literal["last"] | None
) -> tuple[Path | None, State | None]:
    if resume is None:
        return None, None
    folder = Path(config.output.folder) / "checkpoints"
    path = last_state(folder, config.output.name) if resume == "last" else resume
    return path, read_state(path)


def _scan(config: TrainConfig, record: RunRecord, control: RunControl) -> Pictures:
    with record.phase("scan") as words:
        pictures = find_pictures(
            config,
            lambda done, total: record.emit(Progressed(phase="scan", done=done, total=total)),
            lambda: control.should_stop,
        )
        words.append(f"{len(pictures.trained) + len(pictures.held_out)} pictures")
        if pictures.skipped:
            words.append(f"{len(pictures.skipped)} left out")
    for item in pictures.skipped:
        record.emit(ItemSkipped(path=item.path, reason=item.reason))
    for text in pictures.warnings:
        record.emit(Warned(text=text))
    return pictures


def _encode(
    config: TrainConfig,
    record: RunRecord,
    control: RunControl,
    device: torch.device,
    source: ModelSource,
    pictures: Pictures,
) -> tuple[Encoders, Pictures]:
    encoders = Encoders(config, source, device, record.emit, control)
    with record.phase("encode_text") as words:
        words += summarise(encoders.encode_text(pictures))
    with record.phase("encode_pictures") as words:
        report = encoders.encode_pictures(pictures)
        words += summarise(report)
    return encoders, pictures.without(report.skipped) if report.skipped else pictures


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """All that training needs, loaded and counted."""

    unet: Any
    parameters: dict[str, nn.Parameter]
    optimizer: MasterOptimizer
    scaler: LossScaler
    attention: str
    total_parameters: int


class _BaseWeights(Mapping[str, Tensor]):
    """The trained tensors as the base model's file has them, read one at a time."""

    def __init__(self, source: ModelSource, names: tuple[str, ...]) -> None:
        self._source = source
        self._names = names

    def __getitem__(self, name: str) -> Tensor:
        return self._source.read("unet", name).float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        config: TrainConfig,
        on_event: EventSink,
        control: RunControl,
        device: torch.device,
        source: ModelSource,
        state_path: Path | None,
        state: State | None,
    ) -> None:
        self._config = config
        self._control = control
        self._device = device
        self._source = source
        self._state_path = state_path
        self._state = state
        self._dtype = DTYPES[config.training.precision]
        self._targets = targets_of(config, source)
        self._objective = choose_objective(config.objective, source.facts.prediction)
        self._base = source.fingerprint()
        self._position = Position()
        folder = Path(config.output.folder) / "checkpoints"
        name = state["name"] if state else free_name(folder, config.output.name)
        run_id = state["run_id"] if state else ""
        self._record = RunRecord(config, name=name, run_id=run_id, device=device, on_event=on_event)

    def run(self) -> None:
        """Go through all phases."""
        record = self._record
        with record:
            if self._state is not None:
                self._position = _position_of(self._state)
            record.emit(
                RunStarted(
                    run_id=record.run_id,
                    folder=str(record.folder),
                    resumed_from=str(self._state_path or ""),
                    start_step=self._position.step,
                )
            )
            self._tell_notes()
            try:
                self._run_phases()
            except StoppedEarly:
                self._finish("stopped", None)

    def _tell_notes(self) -> None:
        texts = [*self._source.facts.notes, *self._objective.notes]
        texts.append(precision_note(self._device, self._config.training.precision))
        if self._state is None and self._record.name != self._config.output.name:
            texts.append(
                f"there are saves of an earlier run called {self._config.output.name!r}; the files"
                f" of this one are called {self._record.name!r}"
            )
        for text in dict.fromkeys(filter(None, texts)):
            self._record.emit(Warned(text=text))

    def _run_phases(self) -> None:
        config, record = self._config, self._record
        pictures = _scan(config, record, self._control)
        if self._state is not None:
            # Before anything is encoded: a state of another run is refused at once.
            self._check_state(pictures)
        record.begin_recording(resumed_from=str(self._state_path or ""))
        remove_stale_partials(record.checkpoints)
        encoders, pictures = _encode(
            config, record, self._control, self._device, self._source, pictures
        )
        plan = pictures.plan(config.training.batch_size, config.training.seed)
        steps = total_steps(config, plan)
        pool = self._tickets(plan.samples_before(steps * config.training.accumulation_steps))
        with record.phase("load_model"):
            prepared = self._load()
        self._report_plan(prepared, pictures, plan, steps, pool)
        saver = Saver(
            config=config,
            record=record,
            source=self._source,
            objective=self._objective,
            parameters=prepared.parameters,
            optimizer=prepared.optimizer,
            scaler=prepared.scaler,
            position=self._position,
            pool=pool,
            identity=self._identity(pictures),
        )
        note = space_note(saver, record.checkpoints, config.checkpoints.keep_last)
        if note is not None:
            record.emit(note)
        self._train(prepared, encoders, pictures, plan, steps, pool, saver)

    def _identity(self, pictures: Pictures) -> Identity:
        shapes = self._source.unet_shapes()
        return Identity(
            base=self._base,
            dataset=pictures.fingerprint(),
            objective=self._objective.describe(),
            tensors={name: list(shapes[name]) for name in self._targets.names},
        )

    def _check_state(self, pictures: Pictures) -> None:
        """Refuse a state of another run; tell what has changed in one of this."""
        assert self._state is not None
        differences = compare_settings(self._state["config"], encode_config(self._config))
        differences += self._optimizer_format_differences()
        require_same(self._state, self._identity(pictures), differences)
        changed = [str(difference) for difference in differences]
        if changed:
            self._record.emit(Warned(text="changed since the state: " + "; ".join(changed)))
        versions = describe_versions()
        others = [k for k, v in self._state["versions"].items() if versions.get(k) != v]
        if others:
            text = f"the state was saved with another {', '.join(others)}; the last bits may differ"
            self._record.emit(Warned(text=text))

    def _optimizer_format_differences(self) -> list[Difference]:
        assert self._state is not None
        saved = self._state["config"]["optimizer"].get("moments")
        current = encode_config(self._config)["optimizer"].get("moments")
        if saved == current:
            return []
        return [Difference("optimizer.moments", saved, current, allowed=False)]

    def _tickets(self, total_samples: int) -> SegmentedPool:
        pool = ticket_pool(self._config)
        if self._state is None:
            return SegmentedPool.of(pool, total_samples)
        saved = SegmentedPool.from_json(self._state["tickets"])
        if self._position.samples > total_samples:
            raise CheckpointError(
                f"{self._state_path}: the state is at step {self._position.step}, beyond the end of"
                " this run",
                "raise training.steps (or training.epochs) to go on",
            )
        return saved.rebuilt(self._position.samples, total_samples, pool)

    def _load(self) -> _Prepared:
        config = self._config
        unet: Any = load_unet(
            self._source,
            self._dtype,
            self._device,
            warn=lambda text: self._record.emit(Warned(text=text)),
        )
        unet.requires_grad_(False)
        if config.training.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        attention = use_attention(unet, config.model.attention)
        named = dict(unet.named_parameters())
        parameters = {name: named[name].requires_grad_(True) for name in self._targets.names}
        optimizer = build_optimizer(config.optimizer, parameters, config.training.seed)
        scaler = LossScaler(enabled=config.training.precision == "fp16")
        if self._state is None:
            if self._dtype != torch.float32:
                # The exact weights start from the file's own bits, not from their rounding.
                optimizer.load_master_weights(_BaseWeights(self._source, tuple(parameters)))
        else:
            _restore(self._state, parameters, optimizer, scaler)
        self._source.close()
        self._state = None
        release_memory(self._device)
        return _Prepared(
            unet=unet,
            parameters=parameters,
            optimizer=optimizer,
            scaler=scaler,
            attention=attention,
            total_parameters=sum(p.numel() for p in named.values()),
        )

    def _report_plan(
        self,
        prepared: _Prepared,
        pictures: Pictures,
        plan: BatchPlan,
        steps: int,
        pool: SegmentedPool,
    ) -> None:
        buckets: dict[str, int] = {}
        for item in pictures.trained:
            key = f"{item.fit.width}x{item.fit.height}"
            buckets[key] = buckets.get(key, 0) + item.record.repeats
        last = pool.segments[-1]
        optimizer = prepared.optimizer
        self._record.emit(
            RunPlanned(
                total_steps=steps,
                start_step=self._position.step,
                pictures=len(pictures.trained),
                held_out=len(pictures.held_out),
                samples_per_epoch=plan.samples_per_epoch,
                batches_per_epoch=plan.batches_per_epoch,
                buckets=buckets,
                ticket_counts=list(last.pool.counts(last.total)),
                trained_parameters=self._targets.num_params,
                total_parameters=prepared.total_parameters,
                prediction=self._objective.name,
                zero_terminal_snr=self._objective.zero_terminal_snr,
                attention=prepared.attention,
                precision=self._config.training.precision,
                device=str(self._device),
                optimizer=kind_of(self._config.optimizer),
                parameter_bytes=sum(p.nbytes for p in prepared.unet.parameters()),
                state_bytes=optimizer.bytes_on_host() + optimizer.bytes_on_device(),
            )
        )

    def _train(
        self,
        prepared: _Prepared,
        encoders: Encoders,
        pictures: Pictures,
        plan: BatchPlan,
        steps: int,
        pool: SegmentedPool,
        saver: Saver,
    ) -> None:
        config, record, position = self._config, self._record, self._position
        objective = self._objective.make()
        validator = self._validator(encoders, pictures)
        loader = encoders.loader(pictures.trained)
        preparer = BatchPreparer(
            plan=plan,
            load=loader.load,
            pool=pool,
            objective=objective,
            dropout=Dropout(
                probability=config.captions.dropout,
                kind=config.captions.null,
                prompt_embeds=loader.null_prompt_embeds,
                pooled_prompt_embeds=loader.null_pooled_prompt_embeds,
            ),
            seed=config.training.seed,
            accumulation_steps=config.training.accumulation_steps,
            pin=self._device.type == "cuda",
        )
        checks = _Interludes(config, record, self._control, position, saver, validator, plan)
        accumulation = config.training.accumulation_steps
        with (
            record.phase("train"),
            Prefetcher(
                preparer,
                position.step * accumulation,
                steps * accumulation,
                config.training.prefetch_batches,
            ) as batches,
        ):
            checks.before_training(prepared.unet)

            def next_batch() -> tuple[Any, float]:
                waited = batches.wait_seconds
                batch = next(batches)
                return batch, batches.wait_seconds - waited

            trainer = Trainer(
                unet=prepared.unet,
                parameters=prepared.parameters,
                optimizer=prepared.optimizer,
                recipe=self._recipe(objective),
                schedule=config.schedule.learning_rate,
                scaler=prepared.scaler,
                settings=LoopSettings(
                    total_steps=steps,
                    accumulation_steps=accumulation,
                    samples_per_epoch=plan.samples_per_epoch,
                    clip_norm=config.training.clip_norm,
                    max_skipped_steps=config.training.max_skipped_steps,
                    diagnostics_every=config.logging.diagnostics_every,
                ),
                position=position,
                device=self._device,
                emit=record.emit,
                control=self._control,
                next_batch=next_batch,
                after_step=partial(checks.after_step, prepared.unet),
            )
            reason = trainer.run()
        checks.after_training(prepared.unet, reason)
        self._finish(reason, saver)

    def _recipe(self, objective: Any) -> StepRecipe:
        loss = self._config.loss
        weighting = None
        if not isinstance(loss.weighting, NoWeighting):
            weighting = partial(sample_weights, loss.weighting)
        return StepRecipe(
            objective=objective,
            loss=partial(per_sample_loss, loss.function),
            weighting=weighting,
            dtype=self._dtype,
        )

    def _validator(self, encoders: Encoders, pictures: Pictures) -> Validator | None:
        if not pictures.held_out:
            return None
        config = self._config
        objective = self._objective.make()
        grid = validation_grid(config.validation.timesteps)
        loader = encoders.loader(pictures.held_out)
        return Validator(
            num_items=len(pictures.held_out),
            timesteps=grid,
            prepare=lambda item: validation_batch(
                loader.load, item, grid, objective, config.training.seed
            ),
            objective=objective,
            dtype=self._dtype,
            device=self._device,
            chunk=config.training.batch_size,
        )

    def _finish(self, reason: StopReason, saver: Saver | None) -> None:
        last = saver.last if saver else None
        self._record.emit(
            RunFinished(
                reason=reason,
                step=self._position.step,
                skipped_steps=self._position.skipped,
                seconds=time.monotonic() - self._record.started,
                model=str(last.model) if last else "",
                state=str(last.state) if last else str(self._state_path or ""),
            )
        )


class _Interludes:
    """What happens between steps: validation and saving."""

    def __init__(
        self,
        config: TrainConfig,
        record: RunRecord,
        control: RunControl,
        position: Position,
        saver: Saver,
        validator: Validator | None,
        plan: BatchPlan,
    ) -> None:
        self._record = record
        self._control = control
        self._position = position
        self._saver = saver
        self._validator = validator
        self._validate_every = config.validation.every_steps
        checkpoints = config.checkpoints
        self._cadence = SaveCadence(
            checkpoints.every_steps, checkpoints.every_epochs, plan.samples_per_epoch
        )
        self._samples_before = position.samples
        self._validated_step = -1

    def before_training(self, unet: Any) -> None:
        """Measure where a new run starts from."""
        if self._position.step == 0:
            self._validate(unet)

    def after_step(self, unet: Any) -> None:
        """Validate and save when it is time or asked for."""
        position = self._position
        if position.step % self._validate_every == 0:
            self._validate(unet)
        is_due = self._cadence.is_due(position.step, self._samples_before, position.samples)
        self._samples_before = position.samples
        if self._control.take_save_request() or is_due:
            self._saver.save()

    def after_training(self, unet: Any, reason: StopReason) -> None:
        """Measure and save the end."""
        if reason == "completed":
            self._validate(unet)
        if reason == "completed" or self._control.should_save_at_stop:
            self._saver.save()

    def _validate(self, unet: Any) -> None:
        if self._validator is None or self._validated_step == self._position.step:
            return
        with self._record.phase("validate"):
            self._record.emit(self._validator.measure(unet, self._position.step))
        self._validated_step = self._position.step


def _position_of(state: State) -> Position:
    return Position(
        step=state["step"],
        samples=state["samples"],
        skipped=state["skipped"],
        skipped_in_a_row=state["skipped_in_a_row"],
    )


@torch.no_grad()
def _restore(
    state: State,
    parameters: Mapping[str, nn.Parameter],
    optimizer: MasterOptimizer,
    scaler: LossScaler,
) -> None:
    """Put a state's tensors back in place.

    Raises:
        CheckpointError: if they do not fit.
    """
    for name, parameter in parameters.items():
        parameter.copy_(state["weights"][name])
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise CheckpointError(
            f"the optimizer in the state does not fit: {error}", "restore its settings"
        ) from error
    scaler.load_state_dict(state["loss_scale"])
