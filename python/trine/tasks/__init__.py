# SPDX-License-Identifier: Apache-2.0
"""One class for each thing that a model can be made for."""
