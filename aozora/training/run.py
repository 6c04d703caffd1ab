"""A run from its settings to its last file, phase by phase."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from aozora.config.checks import ticket_pool
from aozora.config.choices.weightings import NoWeighting
from aozora.config.codec import encode_config
from aozora.config.schema import TrainConfig
from aozora.config.ticket_segments import SegmentedPool
from aozora.data.batch_plan import BatchPlan
from aozora.data.prefetch import Prefetcher
from aozora.diffusion.losses import per_sample_loss
from aozora.diffusion.objectives import Objective
from aozora.diffusion.timesteps import validation_grid
from aozora.diffusion.weightings import sample_weights
from aozora.errors import AozoraError, CheckpointError
from aozora.events import (
    Event,
    EventSink,
    RunFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    StopReason,
    Warned,
)
from aozora.memory.accounting import UNetFacts
from aozora.memory.machine import Machine, measure
from aozora.memory.memory_plan import MemoryPlan
from aozora.model.source import ModelSource, listed
from aozora.registry import kind_of
from aozora.runtime import long_path, remove_stale_partials
from aozora.training.batches import BatchPreparer, Dropout, validation_batch
from aozora.training.checkpointing import describe_versions, free_name, last_state, read_state
from aozora.training.control import RunControl
from aozora.training.device import (
    DTYPES,
    choose_device,
    device_settings,
    limit_device_memory,
    precision_note,
    settled_heap,
)
from aozora.training.inputs import Encoders, Pictures, StoppedEarly
from aozora.training.interludes import Interludes
from aozora.training.memory_choice import choose_memory, memory_facts, torch_limit
from aozora.training.model_setup import State, TrainableModel, load_trainable
from aozora.training.objective_choice import choose_objective
from aozora.training.preparation import (
    encode_inputs,
    open_base,
    require_valid,
    scan_pictures,
    targets_of,
    total_steps,
)
from aozora.training.resume import Identity, compare_settings, require_same
from aozora.training.run_record import RunRecord, writing_output
from aozora.training.saving import Saver, space_note
from aozora.training.step import PreparedBatch, StepRecipe
from aozora.training.trainer import LoopSettings, Position, Trainer
from aozora.training.validation import Validator


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
            machine = measure(device)
            limit_device_memory(device, torch_limit(config, machine))
            _Run(config, receive, control, device, machine, source, state_path, state).run()
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
                pictures = scan_pictures(config, record, control)
                encoders = Encoders(config, source, device, record.emit, control)
                encode_inputs(encoders, record, pictures)
            except StoppedEarly:
                record.emit(Warned(text="stopped; what was encoded is kept"))


def _find_state(
    config: TrainConfig, resume: Path | Literal["last"] | None
) -> tuple[Path | None, State | None]:
    if resume is None:
        return None, None
    folder = long_path(Path(config.output.folder) / "checkpoints")
    path = last_state(folder, config.output.name) if resume == "last" else resume
    return path, read_state(path)


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        config: TrainConfig,
        on_event: EventSink,
        control: RunControl,
        device: torch.device,
        machine: Machine,
        source: ModelSource,
        state_path: Path | None,
        state: State | None,
    ) -> None:
        self._config = config
        self._control = control
        self._device = device
        self._machine = machine
        self._source = source
        self._state_path = state_path
        self._state = state
        self._dtype = DTYPES[config.training.precision]
        self._targets = targets_of(config, source)
        self._objective = choose_objective(
            config.objective, source.facts.prediction, config.loss.weighting
        )
        self._base = source.fingerprint()
        self._position = Position()
        folder = long_path(Path(config.output.folder) / "checkpoints")
        self._wanted_name = state["name"] if state else config.output.name
        run_id = state["run_id"] if state else ""
        with writing_output(folder):
            name = free_name(folder, self._wanted_name, run_id)
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
        if self._record.name != self._wanted_name:
            texts.append(
                f"there are saves of another run called {self._wanted_name!r}; the files of this"
                f" one are called {self._record.name!r}"
            )
        for text in dict.fromkeys(filter(None, texts)):
            self._record.emit(Warned(text=text))

    def _run_phases(self) -> None:
        config, record = self._config, self._record
        pictures = scan_pictures(config, record, self._control)
        encoders = Encoders(config, self._source, self._device, record.emit, self._control)
        if self._state is not None:
            # What could not be encoded at first stays out, even if it could be now.
            pictures = pictures.without(self._state["identity"].get("left_out", ()))
            # Before anything is encoded: a state of another run is refused at once.
            self._check_state(pictures, encoders)
        record.begin_recording(resumed_from=str(self._state_path or ""))
        remove_stale_partials(record.checkpoints)
        encoded = encode_inputs(encoders, record, pictures)
        if self._state is not None:
            _require_all(encoded, pictures)
        pictures = encoded
        plan = pictures.plan(config.training.batch_size, config.training.seed)
        steps = total_steps(config, plan)
        pool = self._tickets(plan.samples_before(steps * config.training.accumulation_steps))
        with record.phase("load_model"):
            memory_plan, layout = choose_memory(
                config, self._memory_facts(pictures), self._device, self._machine
            )
            for problem in memory_plan.shortfalls:
                record.emit(Warned(text=str(problem)))
            prepared = load_trainable(
                config,
                self._source,
                self._targets.names,
                layout,
                self._device,
                self._state,
                record.emit,
            )
            # Its tensors are in place; the file may be deleted when newer saves replace it.
            self._state = None
        self._report_plan(prepared, memory_plan, pictures, plan, steps, pool)
        saver = Saver(
            config=config,
            record=record,
            source=self._source,
            objective=self._objective,
            engine=prepared.memory.engine,
            ram_limit=memory_plan.ram_limit,
            optimizer=prepared.memory.optimizer,
            scaler=prepared.scaler,
            position=self._position,
            pool=pool,
            identity=self._identity(pictures, encoders),
        )
        note = space_note(saver, record.checkpoints, config.checkpoints.keep_last)
        if note is not None:
            record.emit(note)
        with saver, closing(prepared.memory):
            self._train(prepared, encoders, pictures, plan, steps, pool, saver)

    def _memory_facts(self, pictures: Pictures) -> UNetFacts:
        return memory_facts(
            self._config,
            self._source.unet_shapes(),
            self._targets.names,
            pictures.trained,
            self._source.facts.num_bytes,
        )

    def _identity(self, pictures: Pictures, encoders: Encoders) -> Identity:
        shapes = self._source.unet_shapes()
        return Identity(
            base=self._base,
            dataset=pictures.fingerprint(),
            objective=self._objective.describe(),
            tensors={name: list(shapes[name]) for name in self._targets.names},
            encoders=encoders.fingerprint(),
            left_out=pictures.left_out,
        )

    def _check_state(self, pictures: Pictures, encoders: Encoders) -> None:
        """Refuse a state of another run; tell what has changed in one of this."""
        assert self._state is not None
        differences = compare_settings(self._state["config"], encode_config(self._config))
        require_same(self._state, self._identity(pictures, encoders), differences)
        changed = [str(difference) for difference in differences]
        if changed:
            self._record.emit(Warned(text="changed since the state: " + "; ".join(changed)))
        versions = describe_versions()
        others = [k for k, v in self._state["versions"].items() if versions.get(k) != v]
        if others:
            text = f"the state was saved with another {', '.join(others)}; the last bits may differ"
            self._record.emit(Warned(text=text))

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
        drawn = self._position.samples
        tickets = saved.resumed(drawn, total_samples, pool, self._config.timesteps.on_resume)
        if tickets != saved:
            old = tickets.left_of_begun(drawn, total_samples)
            new = total_samples - drawn - old
            text = f"timestep tickets: {old} left of the pool the run had, then {new} of a new one"
            self._record.emit(Warned(text=text))
        return tickets

    def _report_plan(
        self,
        prepared: TrainableModel,
        memory_plan: MemoryPlan,
        pictures: Pictures,
        plan: BatchPlan,
        steps: int,
        pool: SegmentedPool,
    ) -> None:
        buckets: dict[str, int] = {}
        for item in pictures.trained:
            key = f"{item.fit.width}x{item.fit.height}"
            buckets[key] = buckets.get(key, 0) + item.record.repeats
        samples = plan.samples_before(steps * self._config.training.accumulation_steps)
        optimizer = prepared.memory.optimizer
        self._record.emit(
            RunPlanned(
                total_steps=steps,
                start_step=self._position.step,
                pictures=len(pictures.trained),
                held_out=len(pictures.held_out),
                samples_per_epoch=plan.samples_per_epoch,
                batches_per_epoch=plan.batches_per_epoch,
                buckets=buckets,
                ticket_counts=list(pool.counts(self._config.timesteps.bins, samples)),
                trained_parameters=self._targets.num_params,
                total_parameters=prepared.total_parameters,
                prediction=self._objective.name,
                zero_terminal_snr=self._objective.zero_terminal_snr,
                attention=prepared.attention,
                precision=self._config.training.precision,
                device=str(self._device),
                optimizer=kind_of(self._config.optimizer),
                parameter_bytes=self._dtype.itemsize * prepared.total_parameters,
                state_bytes=optimizer.bytes_on_host() + optimizer.bytes_on_device(),
                memory=memory_plan.sentence,
                expected_device_bytes=memory_plan.predicted.vram,
                expected_host_bytes=memory_plan.predicted.ram,
                expected_reserved_bytes=memory_plan.predicted.reserved,
                expected_step_seconds=memory_plan.predicted.seconds,
                device_name=memory_plan.device,
                pinned_bytes=prepared.memory.engine.host.pinned_bytes,
            )
        )

    def _train(
        self,
        prepared: TrainableModel,
        encoders: Encoders,
        pictures: Pictures,
        plan: BatchPlan,
        steps: int,
        pool: SegmentedPool,
        saver: Saver,
    ) -> None:
        config, record, position = self._config, self._record, self._position
        objective = self._objective.make()
        chunks = encoders.num_chunks(pictures)
        validator = self._validator(encoders, pictures, chunks)
        loader = encoders.loader(pictures.trained, chunks)
        preparer = BatchPreparer(
            plan=plan,
            load=loader.load,
            pool=pool,
            objective=objective,
            dropout=Dropout.of(config.captions, loader),
            seed=config.training.seed,
            accumulation_steps=config.training.accumulation_steps,
            pin=self._device.type == "cuda",
        )
        checks = Interludes(config, record, self._control, position, saver, validator, plan)
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

            def next_batch() -> tuple[PreparedBatch, float]:
                waited = batches.wait_seconds
                batch = next(batches)
                return batch, batches.wait_seconds - waited

            trainer = Trainer(
                unet=prepared.unet,
                memory=prepared.memory,
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
                    clip_by_last_norm=config.memory.clip_by_last_norm,
                ),
                position=position,
                device=self._device,
                emit=record.emit,
                control=self._control,
                next_batch=next_batch,
                after_step=partial(checks.after_step, prepared.unet),
            )
            with settled_heap():
                reason = trainer.run()
        checks.after_training(prepared.unet, reason)
        self._finish(reason, saver)

    def _recipe(self, objective: Objective) -> StepRecipe:
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

    def _validator(self, encoders: Encoders, pictures: Pictures, chunks: int) -> Validator | None:
        if not pictures.held_out:
            return None
        config = self._config
        objective = self._objective.make()
        grid = validation_grid(config.validation.timesteps)
        loader = encoders.loader(pictures.held_out, chunks)
        dropout = Dropout.of(config.captions, loader)
        return Validator(
            num_items=len(pictures.held_out),
            timesteps=grid,
            prepare=lambda item: validation_batch(
                loader.load, item, grid, objective, dropout, config.training.seed
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


def _require_all(encoded: Pictures, wanted: Pictures) -> None:
    """Refuse to go on without pictures that the run has trained with.

    Raises:
        CheckpointError: if there are some.
    """
    lost = encoded.left_out[len(wanted.left_out) :]
    if lost:
        raise CheckpointError(
            "the state cannot be resumed: pictures it was trained with cannot be encoded now:\n  "
            + listed(list(lost)),
            "see the reasons above or in the log and mend them, or start a new run from the saved"
            " model",
        )


def _position_of(state: State) -> Position:
    return Position(
        step=state["step"],
        samples=state["samples"],
        skipped=state["skipped"],
        skipped_in_a_row=state["skipped_in_a_row"],
        last_norm=state["last_norm"],
    )
