"""MiniCPM4 and MiniCPM4.1 with EAGLE3 on stock SGLang, loaded through `SGLANG_EXTERNAL_MODEL_PACKAGE`.

SGLang imports every module of this package and takes the classes that `EntryClass` names; nothing else of ours imports it.
"""
