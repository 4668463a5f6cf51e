"""How one replica lies on its GPUs: the sizes that tell one replica type of a checkpoint on a GPU from another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplicaType:
    """dp groups of attention among tp GPUs, whole experts spread over ep of them, pp such stages.

    A disaggregated unit is ``prefill`` + ``decode`` such engines; both are 0 for an engine that does both.
    """

    tp: int
    pp: int = 1
    dp: int = 1
    ep: int = 1  # 1: every expert is split over tp
    fp8_kv: bool = False  # a KV cache of 1-byte numbers
    draft: bool = False  # the checkpoint's own layer drafts tokens
    prefill: int = 0
    decode: int = 0

    @property
    def is_unit(self) -> bool:
        """Whether it is a disaggregated unit."""
        return self.decode > 0

    @property
    def gpus(self) -> int:
        """GPUs of one replica, all engines of a unit together."""
        return self.tp * self.pp * max(self.prefill + self.decode, 1)

    @property
    def linked(self) -> int:
        """GPUs of one replica that must stand in one node, linked with each other: those of a stage, or a whole unit."""
        return self.gpus if self.is_unit else self.tp

    @property
    def groups(self) -> int:
        """Groups of ``linked`` GPUs that one replica has."""
        return 1 if self.is_unit else self.pp

    @property
    def words(self) -> str:
        """TP4; TP8 EP8 with whole experts; DP8 EP8 where every GPU has the whole attention; stages of PP behind a cross.

        TP8 + MTP where a layer of the checkpoint drafts tokens; 1P3D of TP2: a unit of one prefill and three decode engines.
        """
        tp, pp, dp, ep = self.tp, self.pp, self.dp, self.ep
        attention = [f"TP{tp // max(dp, 1)}" if tp > dp or dp == 1 else "", f"DP{dp}" if dp > 1 else "", f"EP{ep}" if ep > 1 else ""]
        engine = " ".join(a for a in attention if a) + (f" x PP{pp}" if pp > 1 else "") + (" + MTP" if self.draft else "")
        return f"{self.prefill}P{self.decode}D of {engine}" if self.is_unit else engine
