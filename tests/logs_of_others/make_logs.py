"""Makes the logs beside this file, each with the library that people write them with: run again to renew them.

    python -m venv v && v/bin/pip install tensorboard==2.21.0 wandb==0.31.0 mlflow==3.17.2 torch==2.13.0 \
        transformers==5.17 accelerate lightning==2.6.6
    v/bin/python tests/logs_of_others/make_logs.py [tensorboard wandb mlflow huggingface lightning]

Every log says the same: `loss(step)` and `rate(step)` for `STEPS` steps, a NaN and an infinity in the loss, and an
evaluation every ten steps.
"""

import gzip
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
STEPS = 30
NAN_AT, INF_AT = 17, 23


def loss(step: int) -> float:
    if step == NAN_AT:
        return math.nan
    return math.inf if step == INF_AT else 2.0 / (step + 1)


def rate(step: int) -> float:
    return 0.001 * (1 - step / 100)


def tensorboard(folder: Path) -> None:
    """Scalars by step, one series by epoch, hyperparameters; then a second process that goes back to step 20."""
    import torch
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    with SummaryWriter(str(folder)) as writer:
        told = {"lr": 0.001, "optimizer": "adam", "amsgrad": True}
        for summary in hparams(told, {"final": 0.0}):  # type: ignore[no-untyped-call]  # torch says no types
            writer.file_writer.add_summary(summary)
        for step in range(STEPS):
            at = 1_700_000_000.25 + 2 * step
            writer.add_scalar("Loss/train", loss(step), step, walltime=at)
            writer.add_scalar("lr", rate(step), step, walltime=at + 0.001, new_style=True)
            if step % 10 == 9:
                writer.add_scalar("Loss/val", 3.0 / (step + 1), step, walltime=at + 0.5)
                writer.add_scalar("epoch_seconds", 20.0, step // 10, walltime=at + 0.6)
        writer.add_text("note", "no number", 0, walltime=1_700_000_001.0)
        writer.add_histogram("weights", torch.arange(9.0), 0, walltime=1_700_000_001.0)
    with SummaryWriter(str(folder), filename_suffix=".again") as writer:
        for step in range(20, STEPS):
            writer.add_scalar("Loss/train", 1.0 / (step + 1), step, walltime=1_700_000_100.25 + 2 * step)


def wandb(folder: Path) -> None:
    """An offline run."""
    import wandb as client

    work = Path(tempfile.mkdtemp())
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(work)}
    run = client.init(
        project="logs", name="well", id="well0001", tags=["a tag"], group="g",
        config={"lr": 0.001, "model": {"layers": 2}, "wandb_api_key": "0123456789abcdef0123456789abcdef01234567"},
        settings=client.Settings(
            x_stats_sampling_interval=0.2, console="off", disable_git=True, disable_code=True, x_disable_meta=True
        ),
    )  # fmt: skip
    for step in range(STEPS):
        told = {"train": {"loss": loss(step)}, "lr": rate(step), "note": "text", "table": {"rows": [1]}}
        if step % 10 == 9:
            told["val/loss"] = 3.0 / (step + 1)
        run.log(told, step=step)
    time.sleep(1)
    run.finish()
    folder.mkdir(parents=True, exist_ok=True)
    for file in work.glob("wandb/offline-run-*/*.wandb"):
        shutil.copyfile(file, folder / file.name)


def mlflow(folder: Path) -> None:
    """The same run in a folder and in a database, and one more in the database that failed."""
    import mlflow as client

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    os.chdir(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    began = int(time.time() * 1_000) - 60_000
    for uri in (f"file:{folder / 'mlruns'}", f"sqlite:///{folder / 'mlflow.db'}"):
        client.set_tracking_uri(uri)
        client.set_experiment("logs")
        with client.start_run(run_name="well") as run:
            client.log_params({"lr": 0.001, "optimizer": "adam"})
            client.set_tag("team", "us")
            tracking = client.tracking.MlflowClient()
            for step in range(STEPS):
                at = began + 2_000 * step
                tracking.log_metric(run.info.run_id, "loss", loss(step), timestamp=at, step=step)
                tracking.log_metric(run.info.run_id, "lr", rate(step), timestamp=at, step=step)
                if step % 10 == 9:
                    tracking.log_metric(run.info.run_id, "val_loss", 3.0 / (step + 1), timestamp=at + 500, step=step)
                    name = "system/gpu_0_utilization_percentage"
                    tracking.log_metric(run.info.run_id, name, 90.0, timestamp=at + 600, step=step // 10)
    with client.start_run(run_name="failed"):
        client.log_metric("loss", 1.0, step=0)
        client.end_run("FAILED")
    database = folder / "mlflow.db"
    with gzip.GzipFile(folder / "mlflow.db.gz", "wb", mtime=0) as packed:
        packed.write(database.read_bytes())
    database.unlink()


def huggingface(folder: Path) -> None:
    """A Trainer on two numbers, with an evaluation every ten steps and checkpoints."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            said = self.layer(x)
            return {"loss": torch.nn.functional.mse_loss(said, labels), "logits": said}

    torch.manual_seed(0)
    data = [{"x": torch.tensor([float(n % 7)]), "labels": torch.tensor([float(n % 7) * 2])} for n in range(80)]
    out = tempfile.mkdtemp()
    arguments = TrainingArguments(
        out, max_steps=STEPS, logging_steps=1, eval_strategy="steps", eval_steps=10, save_steps=15, report_to=[],
        per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(Two(), arguments, train_dataset=data, eval_dataset=data[:8])
    trainer.train()
    trainer.save_state()
    for state in Path(out).rglob("trainer_state.json"):
        target = folder / state.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(state, target)


def lightning(folder: Path) -> None:
    """Its CSVLogger, told as its trainer does."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(str(folder.parent), name=folder.name, version=0)
    logger.log_hyperparams({"lr": 0.001, "layers": 2})
    for step in range(STEPS):
        logger.log_metrics({"train_loss": loss(step), "lr-Adam": rate(step), "epoch": step // 10}, step=step)
        if step % 10 == 9:
            logger.log_metrics({"val_loss": 3.0 / (step + 1), "epoch": step // 10}, step=step)
        if step % 10 == 9:
            logger.save()
    logger.finalize("success")


MAKERS = {maker.__name__: maker for maker in (tensorboard, wandb, mlflow, huggingface, lightning)}

if __name__ == "__main__":
    for name in sys.argv[1:] or MAKERS:
        shutil.rmtree(HERE / name, ignore_errors=True)
        MAKERS[name]((HERE / name).absolute())
