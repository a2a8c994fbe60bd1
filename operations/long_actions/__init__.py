"""Operations: long actions of operators, planned, carried out item by item, and steered meanwhile."""
