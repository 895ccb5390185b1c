"""What UCUM says of the usual units, so that ucumvert need not be loaded for them: `ontologies/ucum/usual.tsv`."""

from __future__ import annotations

from pathlib import Path

from fhir_features.ontology.units import USUAL, parse_ucum

# Of results, vital signs, doses and times.
UNITS = """
1 % [ppth] [ppm] {score} {ratio} {index} {titer} 10*3 10*6 10*9 10*12
g/L g/dL g/mL mg/L mg/dL mg/mL ug/L ug/dL ug/mL ng/L ng/dL ng/mL pg/L pg/dL pg/mL
mol/L mmol/L mmol/dL umol/L umol/dL nmol/L nmol/dL nmol/mL pmol/L pmol/dL pmol/mL fmol/L mmol/mol mmol/kg mmol/g
meq/L meq/mL osm/kg mosm/kg mosm/L mg/g ug/g ng/g pg/g ug/mg mg/mmol g/mol umol/mmol mmol/mmol g/g mg/mg mg/kg ug/kg
U/L U/mL mU/L mU/mL kU/L U/g [IU] [IU]/L [IU]/dL [IU]/mL k[IU]/L k[IU]/mL m[IU]/L m[IU]/mL u[IU]/mL u[IU]/L m[IU]
kat/L nkat/L ukat/L [arb'U]/mL [GPL'U] [MPL'U] [APL'U] [CFU]/mL
10*3/uL 10*6/uL 10*9/L 10*12/L 10*6/L 10*3/mL 10*6/mL /uL /mL /L /mm3 /[HPF] /[LPF] /100 /{cells}
fL pL nL uL mL dL L cm3 mm3 fg pg ng ug mg g kg t [lb_av] [oz_av] [gr] [stone_av]
nm um mm cm m km [in_i] [ft_i] [mi_i] mm2 cm2 m2 kg/m2 g/m2
s ms min h d wk mo a /s /min /h /d Hz {beats}/min {breaths}/min
mm[Hg] cm[H2O] kPa Pa bar mbar atm [psi] Cel [degF] K [pH] J kJ cal kcal [Cal] W mV V mA A Ohm kOhm
mL/min mL/min/{1.73_m2} mL/min/m2 mL/s mL/h L/min L/h L/min/m2 L/s mL/kg mL/kg/h mL/kg/min mL/d L/d g/d mg/d ug/d mmol/d
mg/h ug/h ug/min ug/kg/min ug/kg/h mg/kg/d mg/kg/h umol/d nmol/d mg/{24.h} g/{24.h} mm/h mm/min cm/s m/s dyn.s/cm5
mg/m2 ug/m2 [IU]/kg [IU]/h [IU]/d U/h U/d U/kg dB deg rad [diop] [drp] [tsp_us] [tbs_us] [foz_us] [cup_us]
""".split()


def build(home: Path) -> None:
    """Write the table below a folder of ontologies."""
    (home / USUAL).parent.mkdir(exist_ok=True)
    (home / USUAL).write_text(table(), encoding="utf-8", newline="\n")


def table() -> str:
    """The table as text: a row a unit, tab-separated."""
    rows: list[tuple[str, ...]] = [("ucum", "dimension", "factor", "offset", "annotation", "arbitrary")]
    for unit in sorted(set(UNITS)):
        parsed = parse_ucum(unit)
        if parsed is None:
            raise ValueError(f"'{unit}' is not a UCUM unit")
        rows.append((unit, *parsed.as_row()))
    return "".join("\t".join(row) + "\n" for row in rows)
