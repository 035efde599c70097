"""UniFormer in plain PyTorch on volumes (B, C, T, H, W), with the official names and shapes of weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


@dataclass
class PlainUniFormer:
    """Computes the plain and the light model, by weights alone.

    Args:
        weights: parameters and running statistics.
        head_dim: channels of an attention head.
        training: whether batch normalisation takes the statistics of the batch.
    """

    weights: Mapping[str, Tensor]
    head_dim: int
    training: bool = False

    def logits(self, clip: Tensor) -> Tensor:
        x = clip
        for stage in (1, 2, 3, 4):
            x = self.patches(x, f"patch_embed{stage}", stage)
            for block in self.blocks(stage):
                x = self.local(x, block) if stage < 3 else self.attention_block(x, block)
        return self.linear(self.batch_norm(x, "norm").mean((2, 3, 4)), "head")

    def blocks(self, stage: int) -> list[str]:
        names = {".".join(name.split(".")[:2]) for name in self.weights if name.startswith(f"blocks{stage}.")}
        return sorted(names, key=lambda name: int(name.split(".")[1]))

    def patches(self, x: Tensor, name: str, stage: int) -> Tensor:
        weight, bias = self.weights[f"{name}.proj.weight"], self.weights[f"{name}.proj.bias"]
        stride = (2, 4, 4) if stage == 1 else (1, 2, 2)
        return self.layer_norm(F.conv3d(x, weight, bias, stride, (weight.shape[2] // 2, 0, 0)), f"{name}.norm", 1e-5)

    def local(self, x: Tensor, name: str) -> Tensor:
        x = x + self.depthwise(x, f"{name}.pos_embed")
        inner = self.point(self.batch_norm(x, f"{name}.norm1"), f"{name}.conv1")
        x = x + self.gamma(1, name) * self.point(self.depthwise(inner, f"{name}.attn"), f"{name}.conv2")
        hidden = F.gelu(self.point(self.batch_norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        return x + self.gamma(2, name) * self.point(hidden, f"{name}.mlp.fc2")

    def attention_block(self, x: Tensor, name: str) -> Tensor:
        x = x + self.depthwise(x, f"{name}.pos_embed")
        _, _, t, h, w = x.shape
        if f"{name}.t_norm.weight" in self.weights:
            normed = self.layer_norm(x, f"{name}.t_norm", 1e-6)
            sequences = rearrange(normed, "b c t h w -> (b h w) t c")
            sequences = self.attention(sequences, f"{name}.t_attn")[0]
            over_time = x + rearrange(sequences, "(b h w) t c -> b c t h w", h=h, w=w)
            frames = rearrange(self.layer_norm(over_time, f"{name}.norm1", 1e-6), "b c t h w -> (b t) (h w) c")
            attended = self.attention(frames, f"{name}.attn")[0]
            x = rearrange(x, "b c t h w -> b (t h w) c")
            x = x + self.gamma(1, name) * rearrange(attended, "(b t) n c -> b (t n) c", t=t)
        else:
            x = rearrange(x, "b c t h w -> b (t h w) c")
            x = x + self.gamma(1, name) * self.attention(self.token_norm(x, f"{name}.norm1"), f"{name}.attn")[0]
        x = x + self.gamma(2, name) * self.mlp(x, name)
        return rearrange(x, "b (t h w) c -> b c t h w", t=t, h=h)

    def light_logits(self, clip: Tensor, keep: float, trade_off: float) -> tuple[Tensor, Tensor]:
        """Of the head on all tokens and of the one on cls."""
        x = self.stem(clip)
        cls, scores = self.weights["cls_token"].expand(len(x), -1, -1), None
        for stage in (1, 2, 3, 4):
            if stage > 1:
                x = self.patches(x, f"patch_embed{stage}", stage)
            if stage == 4:
                cls = self.linear(cls, "cls_upsample")
            for block in self.blocks(stage):
                if stage < 3:
                    x = self.local(x, block)
                else:
                    x, cls, scores = self.pruned_block(x, cls, scores, block, keep, trade_off)
            if stage == 3:
                pooled = F.avg_pool3d(scores.view(len(x), 1, *x.shape[2:]), (1, 2, 2)).flatten(1)
                scores = pooled * scores.sum(1, keepdim=True) / pooled.sum(1, keepdim=True)
        logits = self.linear(self.batch_norm(x, "norm").mean((2, 3, 4)), "head")
        return logits, self.linear(self.token_norm(cls, "norm_cls", 1e-5).squeeze(1), "head_cls")

    def stem(self, clip: Tensor) -> Tensor:
        weight, bias = self.weights["patch_embed1.proj.0.weight"], self.weights["patch_embed1.proj.0.bias"]
        x = F.gelu(self.batch_norm(F.conv3d(clip, weight, bias, (1, 2, 2), 1), "patch_embed1.proj.1"))
        weight, bias = self.weights["patch_embed1.proj.3.weight"], self.weights["patch_embed1.proj.3.bias"]
        return self.batch_norm(F.conv3d(x, weight, bias, (2, 2, 2), 1), "patch_embed1.proj.4")

    def pruned_block(
        self, x: Tensor, cls: Tensor, scores: Tensor | None, name: str, keep: float, trade_off: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sample by sample: all tokens while there are no scores, else the best and the weighted mean of the rest."""
        x = x + self.depthwise(x, f"{name}.pos_embed")
        tokens = x.flatten(2).mT
        results = [
            self.pruned_sample(tokens[b], cls[b], None if scores is None else scores[b], name, keep, trade_off)
            for b in range(len(x))
        ]
        tokens, cls, scores = (torch.stack(parts) for parts in zip(*results, strict=True))
        return tokens.mT.reshape(x.shape), cls, scores

    def pruned_sample(
        self, x: Tensor, cls: Tensor, scores: Tensor | None, name: str, keep: float, trade_off: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        if scores is None:
            out, weights, _ = self.transformed(torch.cat([cls, x]), name)
            return out[1:], out[:1], weights[1:]
        count = int(len(x) * keep)
        order = scores.argsort(descending=True).tolist()
        best, rest = order[:count], order[count:]
        share = scores[rest] / scores[rest].sum()
        others = (share[:, None] * x[rest]).sum(0, keepdim=True)
        out, weights, fast = self.transformed(torch.cat([cls, x[best], others]), name)
        rows, values = [None] * len(x), [None] * len(x)
        for place, token in enumerate(best, 1):
            rows[token] = out[place]
            values[token] = (1 - trade_off) * scores[token] + trade_off * weights[place]
        for token in rest:
            rows[token], values[token] = x[token] + fast, scores[token]
        if len(rest) == 1:
            values[rest[0]] = (1 - trade_off) * scores[rest[0]] + trade_off * weights[-1]
        return torch.stack(rows), out[:1], torch.stack(values)

    def transformed(self, x: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """A sequence (N, C) after attention and MLP, what its first token attends to, and what the last one gained."""
        branch, weights = self.attention(self.token_norm(x, f"{name}.norm1")[None], f"{name}.attn")
        first = self.gamma(1, name) * branch[0]
        second = self.gamma(2, name) * self.mlp(x + first, name)
        return x + first + second, weights[0, :, 0].mean(0), first[-1] + second[-1]

    def attention(self, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Of sequences (B, N, C); with its weights (B, heads, N, N)."""
        q, k, v = rearrange(self.linear(x, f"{name}.qkv"), "b n (three h d) -> three b h n d", three=3, d=self.head_dim)
        weights = (q @ k.mT * self.head_dim**-0.5).softmax(-1)
        return self.linear(rearrange(weights @ v, "b h n d -> b n (h d)"), f"{name}.proj"), weights

    def mlp(self, x: Tensor, name: str) -> Tensor:
        hidden = self.linear(self.token_norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        return self.linear(F.gelu(hidden), f"{name}.mlp.fc2")

    def gamma(self, branch: int, name: str) -> Tensor | float:
        return self.weights.get(f"{name}.gamma_{branch}", 1.0)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def point(self, x: Tensor, name: str) -> Tensor:
        return F.conv3d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def depthwise(self, x: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        padding = [size // 2 for size in weight.shape[2:]]
        return F.conv3d(x, weight, self.weights[f"{name}.bias"], 1, padding, groups=len(weight))

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        mean, var = (self.weights[f"{name}.running_{what}"].clone() for what in ("mean", "var"))
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.batch_norm(x, mean, var, weight, bias, self.training, 0.1, 1e-5)

    def layer_norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        return self.token_norm(x.movedim(1, -1), name, eps).movedim(-1, 1)

    def token_norm(self, x: Tensor, name: str, eps: float = 1e-6) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)
